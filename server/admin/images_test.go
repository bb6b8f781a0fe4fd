package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeImages has one image, "vm", of 3 blocks of which the middle one is a hole.
type fakeImages struct {
	calls []string
	order WorkingSet
	begun chan struct{} // an import that waits for its end says so here
	ended chan error
}

var exported = []byte(strings.Repeat("a", 4096) + strings.Repeat("\x00", 4096) + strings.Repeat("b", 4096))

func (f *fakeImages) note(call ...string) error {
	f.calls = append(f.calls, strings.Join(call, " "))
	return nil
}

func (f *fakeImages) Images() []Image {
	return []Image{{Name: "vm", RAMBytes: 12288, StoredBytes: 8192}}
}
func (f *fakeImages) Image(name string) (Image, error) {
	if name == "nothing" {
		return Image{}, Errorf(CodeNotFound, "image nothing not found")
	}
	return Image{Name: name}, nil
}
func (f *fakeImages) RenameImage(_ context.Context, from, to string) error {
	return f.note("rename", from, to)
}
func (f *fakeImages) DeleteImage(_ context.Context, name string) error { return f.note("delete", name) }
func (f *fakeImages) ForkImage(_ context.Context, image, name string) error {
	return f.note("fork", image, name)
}

func (f *fakeImages) ImportImage(ctx context.Context, q ImportImage, progress func(JobProgress)) (Image, error) {
	progress(JobProgress{Step: "one", TotalBytes: 10})
	switch q.Name {
	case "waits":
		close(f.begun)
		<-ctx.Done()
		f.ended <- context.Cause(ctx)
		return Image{}, ctx.Err()
	case "fails":
		return Image{}, Errorf(CodeNoSpace, "no space")
	case "panics":
		panic(http.ErrAbortHandler)
	}
	progress(JobProgress{Step: "two", DoneBytes: 5})
	return Image{Name: q.Name, Why: q.File}, nil
}

func (f *fakeImages) ExportImage(_ context.Context, name string, w io.Writer) error {
	if name == "nothing" {
		return Errorf(CodeNotFound, "image nothing not found")
	}
	s, err := NewImageStreamWriter(w, int64(len(exported)))
	if err != nil {
		return err
	}
	if err := s.Run(0, exported[:4096]); err != nil {
		return err
	}
	if name == "damaged" {
		return Errorf(CodeDamaged, "a block is damaged")
	}
	if err := s.Run(8192, exported[8192:]); err != nil {
		return err
	}
	return s.End()
}

func (f *fakeImages) ImageState(_ context.Context, name string, w io.Writer) error {
	if name == "nothing" {
		return Errorf(CodeNotFound, "image nothing not found")
	}
	if _, err := io.WriteString(w, "state"); err != nil {
		return err
	}
	if name == "damaged" {
		return Errorf(CodeDamaged, "the state is damaged")
	}
	return nil
}

func (f *fakeImages) WorkingSet(string) (WorkingSet, error) { return f.order, nil }
func (f *fakeImages) SetWorkingSet(_ context.Context, _ string, w WorkingSet) (int, error) {
	f.order = w
	return len(w.Chunks) / 2, nil
}
func (f *fakeImages) ImageCounters() ImageCounters { return ImageCounters{Imports: 7, Active: 1} }

// startImages serves fake images, with every right or with none.
func startImages(t *testing.T, f *fakeImages, a Access) *Client {
	t.Helper()
	return startWith(t, Config{Images: f}, a)
}

// startWith serves a fake array and what else is configured, and returns a client that has the token.
func startWith(t *testing.T, cfg Config, a Access) *Client {
	t.Helper()
	cfg.Array, cfg.Token = &fakeArray{}, testToken
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := New(cfg).HTTP(a)
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return NewClient("unix", path, testToken)
}

func TestImages(t *testing.T) {
	f := &fakeImages{}
	c := startImages(t, f, Access{Changes: true})
	ctx := t.Context()
	if all, err := c.Images(ctx); err != nil || len(all) != 1 || all[0].Name != "vm" {
		t.Errorf("images %+v, %v", all, err)
	}
	if _, err := c.Image(ctx, "nothing"); CodeOf(err) != CodeNotFound {
		t.Errorf("image nothing: %v", err)
	}
	if i, err := c.RenameImage(ctx, "vm", "a b/c"); err != nil || i.Name != "a b/c" {
		t.Errorf("renamed %+v, %v", i, err)
	}
	if _, err := c.ForkImage(ctx, "vm", "twin"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteImage(ctx, "a b/c"); err != nil {
		t.Error(err)
	}
	if want := []string{"rename vm a b/c", "fork vm twin", "delete a b/c"}; !slices.Equal(f.calls, want) {
		t.Errorf("calls %q", f.calls)
	}
	chunks := make([]int64, 60000)
	for i := range chunks {
		chunks[i] = int64(i) + 1<<40
	}
	if kept, err := c.SetWorkingSet(ctx, "vm", WorkingSet{ChunkBytes: 4096, Chunks: chunks}); err != nil || kept != 30000 {
		t.Errorf("kept %d, %v", kept, err)
	}
	if w, err := c.WorkingSet(ctx, "vm"); err != nil || !slices.Equal(w.Chunks, chunks) {
		t.Errorf("%d chunks, %v", len(w.Chunks), err)
	}
	huge := WorkingSet{Chunks: make([]int64, 1<<20)}
	if _, err := c.SetWorkingSet(ctx, "vm", huge); err != nil || len(f.order.Chunks) != MaxWorkingSetChunks {
		t.Errorf("of a huge working set %d chunks were sent: %v", len(f.order.Chunks), err)
	}
	if err := c.call(ctx, http.MethodPut, imagePath("vm", "/working-set"), huge, nil); CodeOf(err) != CodeInvalid {
		t.Errorf("a huge request: %v", err)
	}
}

func TestImport(t *testing.T) {
	f := &fakeImages{begun: make(chan struct{}), ended: make(chan error, 1)}
	c := startImages(t, f, Access{Changes: true})
	var steps []string
	i, err := c.ImportImage(t.Context(), ImportImage{Name: "vm", File: "/ram"}, func(p JobProgress) { steps = append(steps, p.Step) })
	if err != nil || i.Name != "vm" || i.Why != "/ram" || !slices.Equal(steps, []string{"one", "two"}) {
		t.Errorf("imported %+v with steps %q: %v", i, steps, err)
	}
	if _, err := c.ImportImage(t.Context(), ImportImage{Name: "fails"}, nil); CodeOf(err) != CodeNoSpace {
		t.Errorf("an import that fails: %v", err)
	}
	if _, err := c.ImportImage(t.Context(), ImportImage{Name: "panics"}, nil); !errors.Is(err, ErrStopped) || errors.Is(err, ErrNoServer) {
		t.Errorf("a server that stops in the middle: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-f.begun
		cancel()
	}()
	if _, err := c.ImportImage(ctx, ImportImage{Name: "waits"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled import: %v", err)
	}
	if err := <-f.ended; err == nil {
		t.Error("the server went on after its client had gone")
	}
}

func TestExport(t *testing.T) {
	c := startImages(t, &fakeImages{}, Access{Changes: true})
	export := func(name string) ([]byte, error) {
		var got []byte
		err := c.ExportImage(t.Context(), name,
			func(size int64) error {
				got = make([]byte, size)
				return nil
			},
			func(off, n int64, from io.Reader) error {
				_, err := io.ReadFull(from, got[off:off+n])
				return err
			})
		return got, err
	}
	if got, err := export("vm"); err != nil || !bytes.Equal(got, exported) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := export("nothing"); CodeOf(err) != CodeNotFound {
		t.Errorf("image nothing: %v", err)
	}
	if _, err := export("damaged"); err == nil {
		t.Error("half a memory passed as a whole one")
	}
}

func TestImageState(t *testing.T) {
	c := startImages(t, &fakeImages{}, Access{Changes: true})
	var got strings.Builder
	if n, err := c.ImageState(t.Context(), "vm", &got); err != nil || n != 5 || got.String() != "state" {
		t.Errorf("state %q: %v", &got, err)
	}
	if _, err := c.ImageState(t.Context(), "nothing", io.Discard); CodeOf(err) != CodeNotFound {
		t.Errorf("image nothing: %v", err)
	}
	if _, err := c.ImageState(t.Context(), "damaged", io.Discard); err == nil {
		t.Error("damaged state passed as whole")
	}
}

// TestPublicListener: without the rights of the admin socket no files are read and no memory is shown, token or not.
func TestPublicListener(t *testing.T) {
	f := &fakeImages{}
	c := startImages(t, f, Access{})
	if _, err := c.ImportImage(t.Context(), ImportImage{Name: "vm"}, nil); CodeOf(err) != CodeForbidden {
		t.Errorf("import: %v", err)
	}
	if err := c.ExportImage(t.Context(), "vm", nil, nil); CodeOf(err) != CodeForbidden {
		t.Errorf("export: %v", err)
	}
	if _, err := c.ImageState(t.Context(), "vm", io.Discard); CodeOf(err) != CodeForbidden {
		t.Errorf("device state: %v", err)
	}
	if _, err := c.ForkImage(t.Context(), "vm", "twin"); err != nil {
		t.Errorf("fork with the token: %v", err)
	}
	c.token = ""
	if err := c.DeleteImage(t.Context(), "vm"); CodeOf(err) != CodeUnauthorized {
		t.Errorf("delete without the token: %v", err)
	}
	if all, err := c.Images(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("list: %v", err)
	}
}

func FuzzImageStream(f *testing.F) {
	var whole bytes.Buffer
	w, err := NewImageStreamWriter(&whole, 9)
	if err := errors.Join(err, w.Run(0, []byte("a")), w.Run(5, []byte("bc")), w.End()); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:40])
	f.Fuzz(func(t *testing.T, raw []byte) {
		var total, next int64
		_ = ReadImageStream(bytes.NewReader(raw),
			func(size int64) error {
				total = size
				return nil
			},
			func(off, n int64, from io.Reader) error {
				if off < next || n <= 0 || off+n > total {
					t.Errorf("a run of %d bytes at %d of %d, behind %d", n, off, total, next)
				}
				next = off + n
				_, err := io.Copy(io.Discard, from)
				return err
			})
	})
}
