package memguest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/memsvc/qemu"
	"lsad/memsvc/qemu/qmp"
	"lsad/tools/guest"
)

// The kit is made once for all tests.
var kit = sync.OnceValues(func() (*Kit, error) {
	dir, err := os.MkdirTemp("", "lsad-memguest-kit-")
	if err != nil {
		return nil, err
	}
	kitDir = dir
	return Make(context.Background(), dir)
})

var kitDir string

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(kitDir)
	os.Exit(code)
}

// start starts a VM for a test. Its output is logged if the test fails.
func start(t *testing.T, o Options) *VM {
	t.Helper()
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	k, err := kit()
	if errors.Is(err, guest.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	vm, err := k.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		vm.Close()
		if t.Failed() {
			t.Logf("%s:\n%s", o.RAMFile, vm.Output())
		}
	})
	return vm
}

// check is fatal if err is not nil.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience ends tests that hang; nothing takes nearly as long.
const patience = 4 * time.Minute

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ramFile is a sparse file as a qemu.RAMFile.
type ramFile struct{ *os.File }

func newRAMFile(t *testing.T) ramFile {
	f, err := os.CreateTemp(t.TempDir(), "ram")
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return ramFile{f}
}

func (f ramFile) Zero(off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// save has a VM migrate into a file.
func save(t *testing.T, ctx context.Context, vm *VM) (*qemu.Ingested, ramFile) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in")
	l, err := net.Listen("unix", path)
	check(t, err)
	defer l.Close()
	check(t, vm.Migrate(ctx, "unix:"+path))
	conn, err := l.Accept()
	check(t, err)
	defer conn.Close()
	ram := newRAMFile(t)
	began := time.Now()
	in, err := qemu.Ingest(ctx, conn, ram, qemu.IngestOptions{})
	check(t, err)
	t.Logf("ingested %d pages with data, %d zero, %d absent, %d again, in %v; %d bytes of device state",
		in.Data, in.Zero, in.Absent, in.Again, time.Since(began).Round(time.Millisecond), len(in.State.Device))
	return in, ram
}

func TestSave(t *testing.T) {
	ctx := withPatience(t)
	vm := start(t, Options{MemoryMiB: 256, UsedMiB: 48, FreedMiB: 64})
	check(t, vm.WaitLine(ctx, "ready"))
	check(t, vm.WaitRounds(ctx, 2))
	in, _ := save(t, ctx, vm)
	for _, b := range in.State.Blocks {
		t.Logf("block %s: %d bytes", b.Name, b.Size)
	}
	t.Logf("machine %s", in.State.Machine)
}

// unixPath returns a path for a socket.
func unixPath(t *testing.T, name string) string { return filepath.Join(t.TempDir(), name) }

func dialUnix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// restore brings a saved VM to a QEMU that waits for it, and checks that it goes on.
func restore(t *testing.T, ctx context.Context, o Options, in *qemu.Ingested, ram ramFile) {
	t.Helper()
	o.Incoming = true
	vm := start(t, o)
	path := unixPath(t, "to")
	check(t, vm.Receive(ctx, "unix:"+path))
	p, err := qemu.Restore(ctx, qemu.RestoreOptions{
		State: in.State, RAM: ram, Dial: dialUnix(path),
		Progress: func(p qemu.Progress) { t.Logf("%s %s: %d of %d pages", p.Phase, p.Owner, p.SentPages, p.TotalPages) },
	})
	check(t, err)
	t.Logf("restored: %+v", p)
	if p.Owner != qemu.Destination || p.Phase != qemu.Complete || p.DataPages+p.ZeroPages != in.State.Pages() {
		t.Errorf("result %+v", p)
	}
	check(t, vm.WaitRounds(ctx, 3))
	vm.Close()
}

// TestRestore holds that an image can be resumed again and again, and that the guest finds its memory as it was.
func TestRestore(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 256, UsedMiB: 48, FreedMiB: 64}
	vm := start(t, o)
	check(t, vm.WaitLine(ctx, "ready"))
	check(t, vm.WaitRounds(ctx, 2))
	in, ram := save(t, ctx, vm)
	vm.Close()
	state, err := qemu.UnmarshalState(bytes.NewReader(in.State.Marshal()))
	check(t, err)
	in.State = state
	for range 2 {
		restore(t, ctx, o, in, ram)
	}
}

// cutter is a connection that ends after so many bytes were written.
type cutter struct {
	net.Conn
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left <= 0 {
		c.Close()
	}
	return c.Conn.Write(p)
}

// TestRecover holds that a connection may break in the middle, twice, and that the guest then waits and goes on.
func TestRecover(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 256, UsedMiB: 64}
	vm := start(t, o)
	check(t, vm.WaitLine(ctx, "ready"))
	in, ram := save(t, ctx, vm)
	vm.Close()
	o.Incoming = true
	vm = start(t, o)
	paths := []string{unixPath(t, "first"), unixPath(t, "second"), unixPath(t, "third")}
	check(t, vm.Receive(ctx, "unix:"+paths[0]))
	attempt := 0
	again := make(chan string, 2)
	go func() {
		for _, path := range paths[1:] {
			_, err := vm.QMP.Wait(ctx, func(e qmp.Event) bool {
				return e.Name == "MIGRATION" && strings.Contains(string(e.Data), "postcopy-paused")
			})
			if err == nil {
				err = vm.QMP.ExecuteNow(ctx, "migrate-recover", map[string]string{"uri": "unix:" + path}, nil)
			}
			if err != nil {
				t.Errorf("recover at the destination: %v", err)
			}
			again <- path
		}
	}()
	path := paths[0]
	p, err := qemu.Restore(ctx, qemu.RestoreOptions{
		State: in.State, RAM: ram,
		Dial: func(ctx context.Context) (net.Conn, error) {
			if attempt > 0 && attempt < 3 {
				path = <-again
			}
			attempt++
			conn, err := dialUnix(path)(ctx)
			if err != nil || attempt > 2 {
				return conn, err
			}
			return &cutter{conn, 30 << 20}, nil
		},
		Progress: func(p qemu.Progress) { t.Logf("%s %s: %d of %d pages", p.Phase, p.Owner, p.SentPages, p.TotalPages) },
	})
	check(t, err)
	t.Logf("restored: %+v", p)
	if p.Losses != 2 || p.Phase != qemu.Complete {
		t.Errorf("result %+v", p)
	}
	check(t, vm.WaitRounds(ctx, 3))
}
