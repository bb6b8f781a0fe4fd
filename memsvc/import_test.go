package memsvc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lsad/kvmhook/guestmem"
)

// ramFile makes a file of so many pages: each is a hole (' '), zeros ('0') or data of its own.
func ramFile(t *testing.T, kinds string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for n, kind := range kinds {
		if kind == ' ' {
			continue
		}
		if _, err := f.WriteAt(pageOf(kind), int64(n)*PageSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(kinds)) * PageSize); err != nil {
		t.Fatal(err)
	}
	return f
}

func pageOf(kind rune) []byte {
	if kind == ' ' || kind == '0' {
		return make([]byte, PageSize)
	}
	r := rand.New(rand.NewPCG(uint64(kind), 1))
	p := make([]byte, PageSize)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// free makes a FreePages that says that pages of its set, by guest-physical page number, are free, if the first range
// has low pages (0: any number).
func free(low int, pages ...uint64) FreePages {
	return func(_ context.Context, m *guestmem.Memory, _ guestmem.Options) (*guestmem.PageSet, guestmem.Report, error) {
		if low > 0 && len(m.Ranges()[0].Data) != low*PageSize {
			return nil, guestmem.Report{Why: "that is not where it is"}, nil
		}
		set := guestmem.NewPageSet(m.Pages())
		for _, gpa := range pages {
			if page, ok := m.PageAt(gpa * PageSize); ok {
				set.Add(page, 1)
			}
		}
		return set, guestmem.Report{Trusted: true, Kernel: "6.12", Why: "agrees"}, nil
	}
}

func paused(context.Context) error { return nil }

// importKinds imports a file of pages.
func importKinds(t *testing.T, s *Service, kinds string, o ImportOptions) (Info, error) {
	t.Helper()
	src, err := OpenSource(ramFile(t, kinds), "")
	if err != nil {
		t.Fatal(err)
	}
	if o.Paused == nil {
		o.Paused = paused
	}
	return s.Import(t.Context(), src, o)
}

// checkImage fails unless an image has the pages, and holes just where kinds has ' '.
func checkImage(t *testing.T, s *Service, name, kinds string) {
	t.Helper()
	img, err := s.Open(name, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if img.RAM() != int64(len(kinds))*PageSize {
		t.Fatalf("image %s has %d bytes", name, img.RAM())
	}
	got := make([]byte, PageSize)
	off := int64(0)
	err = img.Extents(0, img.RAM(), func(n int64, hole bool) bool {
		for range n / PageSize {
			kind := rune(kinds[off/PageSize])
			if err := img.ReadAt(got, off); err != nil || !bytes.Equal(got, pageOf(kind)) {
				t.Errorf("image %s: page %d is not %q: %v", name, off/PageSize, kind, err)
			}
			if hole != (kind == ' ') {
				t.Errorf("image %s: page %d: hole %v, want %q", name, off/PageSize, hole, kind)
			}
			off += PageSize
		}
		return true
	})
	if err != nil || off != img.RAM() {
		t.Errorf("image %s: extents cover %d bytes: %v", name, off, err)
	}
}

func TestImport(t *testing.T) {
	for _, test := range []struct {
		name, ram, image string
		free             FreePages
		keep             bool
		pages            PageCounts
	}{
		{"data and zeros", "ab0c  d", "ab c  d", nil, false, PageCounts{Total: 7, InUse: 4, Zero: 3}},
		{"all zeros", "00 0", "    ", nil, false, PageCounts{Total: 4, Zero: 4}},
		{"only holes", "    ", "    ", nil, false, PageCounts{Total: 4, Zero: 4}},
		{"free pages", "ab0c  d", "a  c   ", free(0, 1, 2, 4, 6), false, PageCounts{Total: 7, InUse: 2, Free: 4, Zero: 1}},
		{"free pages kept", "ab0c", "ab c", free(0, 1, 2), true, PageCounts{Total: 4, InUse: 3, Zero: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newService(t, newMemStore(), test.free)
			info, err := importKinds(t, s, test.ram, ImportOptions{Name: "vm", KeepFree: test.keep})
			if err != nil {
				t.Fatal(err)
			}
			if info.Manifest.Pages != test.pages {
				t.Errorf("pages %+v, want %+v", info.Manifest.Pages, test.pages)
			}
			if info.Manifest.Elision.Why == "" || info.Manifest.Elision.Free != (test.free != nil && !test.keep) {
				t.Errorf("elision %+v", info.Manifest.Elision)
			}
			checkImage(t, s, "vm", test.image)
		})
	}
}

// TestImportLarge crosses the borders of chunks, with random extents.
func TestImportLarge(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	kinds := make([]byte, 3*copyChunk/PageSize+17)
	for n := 0; n < len(kinds); {
		kind := " 0ab"[r.IntN(4)]
		for run := r.IntN(300); run >= 0 && n < len(kinds); run-- {
			kinds[n] = kind
			n++
		}
	}
	s := newService(t, newMemStore(), nil)
	if _, err := importKinds(t, s, string(kinds), ImportOptions{Name: "vm"}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, s, "vm", string(bytes.ReplaceAll(kinds, []byte("0"), []byte(" "))))
	// A child that differs everywhere in some way.
	child := bytes.Clone(kinds)
	for n := range child {
		if r.IntN(3) == 0 {
			child[n] = " 0ab"[r.IntN(4)]
		}
	}
	if _, err := importKinds(t, s, string(child), ImportOptions{Name: "later", Parent: "vm"}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, s, "later", string(bytes.ReplaceAll(child, []byte("0"), []byte(" "))))
	checkImage(t, s, "vm", string(bytes.ReplaceAll(kinds, []byte("0"), []byte(" "))))
}

func TestParentSharesWhatIsEqual(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, free(0, 5))
	if _, err := importKinds(t, s, "abcde ", ImportOptions{Name: "vm", State: bytes.NewReader(make([]byte, 9000))}); err != nil {
		t.Fatal(err)
	}
	s.freePages = free(0, 1)
	info, err := importKinds(t, s, "ab0xef", ImportOptions{Name: "later", Parent: "vm"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (PageCounts{Total: 6, InUse: 4, Free: 1, Zero: 1, Shared: 2}); info.Manifest.Pages != want {
		t.Errorf("pages %+v, want %+v", info.Manifest.Pages, want)
	}
	if info.Manifest.Parent != "vm" || info.Manifest.State.Length != 0 {
		t.Errorf("manifest %+v", info.Manifest)
	}
	checkImage(t, s, "later", "a  xef")
	checkImage(t, s, "vm", "abcde ")
	if _, err := importKinds(t, s, "ab", ImportOptions{Name: "other", Parent: "vm"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a parent of another size: %v", err)
	}
}

func TestLayoutIsFoundByTrying(t *testing.T) {
	s := newService(t, newMemStore(), free(3, 0, 4<<30/PageSize))
	src, err := OpenSource(ramFile(t, "abcde"), "")
	if err != nil {
		t.Fatal(err)
	}
	src.Layouts = [][]Range{{{0, 2 * PageSize}, {4 << 30, 3 * PageSize}}, {{0, 3 * PageSize}, {4 << 30, 2 * PageSize}}}
	info, err := s.Import(t.Context(), src, ImportOptions{Name: "vm", Paused: paused})
	if err != nil {
		t.Fatal(err)
	}
	if r := info.Manifest.Blocks[0].Ranges; len(r) != 2 || r[0].Size != 3*PageSize {
		t.Errorf("ranges %+v", r)
	}
	checkImage(t, s, "vm", " bc e")
}

func TestState(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	state := make([]byte, 2*stateChunk+5001)
	for i := range state {
		state[i] = byte(i * i >> 3)
	}
	info, err := importKinds(t, s, "ab", ImportOptions{Name: "vm", State: bytes.NewReader(state)})
	if err != nil || info.Manifest.State.Length != int64(len(state)) {
		t.Fatalf("state %+v: %v", info.Manifest, err)
	}
	img, err := s.Open("vm", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got, err := io.ReadAll(img.State()); err != nil || !bytes.Equal(got, state) {
		t.Errorf("device state of %d bytes differs: %v", len(got), err)
	}
	if err := img.ReadAt(make([]byte, PageSize), 2*PageSize); !errors.Is(err, ErrInvalid) {
		t.Errorf("the device state was read as RAM: %v", err)
	}
	store.volumes["vm"].pages[3*PageSize] = pageOf('x')
	if _, err := io.ReadAll(img.State()); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged device state: %v", err)
	}
}

// cancelling is a device state without end, during whose first chunk the import is cancelled.
type cancelling struct {
	cancel context.CancelFunc
	read   int
}

func (c *cancelling) Read(p []byte) (int, error) {
	c.cancel()
	c.read += len(p)
	return len(p), nil
}

// TestStateEndsWithImport holds that no more of a device state is read than a chunk once the import was cancelled.
func TestStateEndsWithImport(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	src, err := OpenSource(ramFile(t, "ab"), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	state := &cancelling{cancel: cancel}
	if _, err := s.Import(ctx, src, ImportOptions{Name: "vm", State: state, Paused: paused}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled import: %v", err)
	}
	if state.read > stateChunk || len(store.volumes) != 0 {
		t.Errorf("%d bytes of state were read, volumes %v", state.read, store.volumes)
	}
}

func TestPauseIsProvenTwice(t *testing.T) {
	for asks := range 2 {
		store := newMemStore()
		s := newService(t, store, nil)
		n := 0
		_, err := importKinds(t, s, "ab", ImportOptions{Name: "vm", Paused: func(context.Context) error {
			if n++; n > asks {
				return ErrRunning
			}
			return nil
		}})
		if !errors.Is(err, ErrRunning) || len(store.volumes) != 0 {
			t.Errorf("a VM that runs at question %d: %v, volumes %v", asks+1, err, store.volumes)
		}
	}
}

// What a guest calls its kernel is shown to people.
func TestHostileKernelName(t *testing.T) {
	s := newService(t, newMemStore(), func(_ context.Context, m *guestmem.Memory, _ guestmem.Options) (*guestmem.PageSet, guestmem.Report, error) {
		return guestmem.NewPageSet(m.Pages()), guestmem.Report{Kernel: "6.12\x1b[2J\xff\n", Why: strings.Repeat("\x00é", 400)}, nil
	})
	info, err := importKinds(t, s, "ab", ImportOptions{Name: "vm"})
	if err != nil || info.Manifest.Kernel != "6.12?[2J??" || len(info.Manifest.Elision.Why) > maxText {
		t.Errorf("kernel %q, why %q: %v", info.Manifest.Kernel, info.Manifest.Elision.Why, err)
	}
}

// TestNameOfCancelledImport holds that a name is refused while an import has it, and waited for once that was cancelled.
func TestNameOfCancelledImport(t *testing.T) {
	s := newService(t, newMemStore(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var first *naming
	asked := 0
	o := ImportOptions{Name: "vm", Paused: func(context.Context) error {
		if asked++; asked < 2 {
			return nil
		}
		if _, err := s.tryTake(t.Context(), "vm"); !errors.Is(err, ErrExists) {
			t.Errorf("while it is imported: %v", err)
		}
		cancel()
		var err error
		if first, err = s.tryTake(t.Context(), "vm"); first == nil || err != nil {
			t.Errorf("when it was cancelled: %v", err)
		}
		return nil
	}}
	src, err := OpenSource(ramFile(t, "ab"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(ctx, src, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-first.done
	if _, err := importKinds(t, s, "ab", ImportOptions{Name: "vm"}); err != nil {
		t.Error(err)
	}
}
