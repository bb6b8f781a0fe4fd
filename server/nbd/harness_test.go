package nbd

import (
	"context"
	"net"
	"path/filepath"
	"sort"
	"sync"
	"testing"
	"time"

	"lsad/server/nbd/memexport"
)

// described is a disk that knows its name.
type described struct {
	*memexport.Disk
	info ExportInfo
}

func (d described) Info() ExportInfo { return d.info }

// shelf is a catalog of disks in memory. The default export is "disk".
type shelf struct {
	mu    sync.Mutex
	disks map[string]*memexport.Disk
	seen  []Client
}

func (s *shelf) List() []ExportInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []ExportInfo
	for name := range s.disks {
		list = append(list, ExportInfo{Name: name, Description: about[name]})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// about holds descriptions.
var about = map[string]string{"disk": "a disk to test with"}

func (s *shelf) Open(name string, cl Client) (Export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, cl)
	if name == "" {
		name = "disk"
	}
	d, ok := s.disks[name]
	if !ok {
		return nil, ErrUnknownExport
	}
	return described{d.Open(), ExportInfo{Name: name, Description: about[name]}}, nil
}

// rig is a running server with its exports and address.
type rig struct {
	*Server
	shelf   *shelf
	path    string         // of its unix socket
	serving sync.WaitGroup // calls of Serve
}

const testSize = 4 << 20

// newRig starts a server with two exports of testSize bytes, "disk" and the read-only "rom", which stops with the
// test. Then nothing must be left open.
func newRig(t testing.TB, change func(*Config, *shelf)) *rig {
	t.Helper()
	sh := &shelf{disks: map[string]*memexport.Disk{
		"disk": memexport.New(testSize, false),
		"rom":  memexport.New(testSize, true),
	}}
	cfg := Config{Catalog: sh}
	if change != nil {
		change(&cfg, sh)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: srv, shelf: sh, path: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		r.serving.Wait()
		r.idle(t)
	})
	return r
}

func (r *rig) serve(t testing.TB, l net.Listener) {
	r.serving.Add(1)
	go func() {
		defer r.serving.Done()
		if err := r.Serve(context.Background(), l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
}

// idle checks that every export was closed and all memory given back.
func (r *rig) idle(t testing.TB) {
	t.Helper()
	for name, d := range r.shelf.disks {
		if n := d.Opened(); n != 0 {
			t.Errorf("export %s is open %d times", name, n)
		}
	}
	if n := r.Stats().BufferBytes; n != 0 {
		t.Errorf("%d bytes of payload memory are still in use", n)
	}
	if n := len(r.Connections()); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// dial connects a client.
func (r *rig) dial(t testing.TB) *client {
	t.Helper()
	return dialAt(t, "unix", r.path)
}

// dialTCP has the server listen on a port too, and connects a client there.
func (r *rig) dialTCP(t testing.TB) *client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, l)
	return dialAt(t, "tcp", l.Addr().String())
}

func dialAt(t testing.TB, network, address string) *client {
	t.Helper()
	nc, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(testDeadline))
	return &client{t: t, nc: nc}
}

// enter connects a client to an export.
func (r *rig) enter(t testing.TB, m mode, name string, queries ...string) *client {
	t.Helper()
	c := r.dial(t)
	c.enter(m, name, queries...)
	return c
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testDeadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// add puts a further disk on the shelf.
func (s *shelf) add(name string, size int64) { s.disks[name] = memexport.New(size, false) }
