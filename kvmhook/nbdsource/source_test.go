package nbdsource

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
	"lsad/kvmhook/hooktest"
	"lsad/kvmhook/vmmtest"
	"lsad/server/nbd"
	"lsad/server/nbd/memexport"
)

const (
	patience = time.Minute
	pages    = 1024
	page     = 4096
)

func TestMain(m *testing.M) {
	vmmtest.Main()
	os.Exit(m.Run())
}

// image is what the export holds: of 24 pages, the first 8 are a hole.
func image() []byte {
	p := make([]byte, pages*page)
	for i := 0; i < len(p); i += 8 {
		if i/page/8%3 != 0 {
			binary.LittleEndian.PutUint64(p[i:], uint64(i)|1<<60)
		}
	}
	return p
}

// shelf is a catalog of one disk.
type shelf struct{ s *server }

func (s *shelf) List() []nbd.ExportInfo { return []nbd.ExportInfo{{Name: "vm"}} }

func (s *shelf) Open(string, nbd.Client) (nbd.Export, error) {
	if d := s.s.says.Load(); d != nil {
		return described{s.s.disk.Open(), d.description, d.sealed}, nil
	}
	return s.s.disk.Open(), nil
}

// server is an NBD server that can be stopped and started again at the same address.
type server struct {
	t       testing.TB
	disk    *memexport.Disk
	failing atomic.Int64 // reads of this page fail, unless negative
	passing atomic.Int64 // so many times, unless zero
	says    atomic.Pointer[described]
	listen  func() (net.Listener, error)
	stop    func()
}

func newServer(t testing.TB, listen func() (net.Listener, error)) *server {
	t.Helper()
	s := &server{t: t, disk: memexport.New(pages*page, false), listen: listen}
	s.failing.Store(-1)
	s.disk.Fail = func(op string, off, n int64) error {
		if at := s.failing.Load() * page; op == "read" && at >= off && at < off+n {
			if s.passing.Load() > 0 && s.passing.Add(-1) == 0 {
				s.failing.Store(-1)
			}
			return syscall.EIO
		}
		return nil
	}
	data := image()
	for i := 0; i < pages; i += 8 {
		if i/8%3 != 0 {
			errs := make([]error, 1)
			s.disk.WriteBatch([]int64{int64(i) * page}, [][]byte{data[i*page : (i+8)*page]}, errs)
		}
	}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func unixServer(t testing.TB) (*server, nbdclient.Target) {
	path := filepath.Join(t.TempDir(), "s")
	s := newServer(t, func() (net.Listener, error) {
		os.Remove(path)
		return net.Listen("unix", path)
	})
	return s, nbdclient.Target{Network: "unix", Address: path, Export: "vm"}
}

func (s *server) start() {
	s.t.Helper()
	srv, err := nbd.New(nbd.Config{Catalog: &shelf{s}})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := s.listen()
	if err != nil {
		s.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), l) }()
	s.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		srv.Shutdown(ctx)
		<-done
	})
}

func (s *server) describe(text string, sealed bool) {
	s.says.Store(&described{description: text, sealed: sealed})
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func open(t testing.TB, target nbdclient.Target, o Options) *Source {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(testLog{t}, nil))
	s, err := Open(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// outcome is a Completion.
type outcome chan error

func (o outcome) Done(err error) { o <- err }

func (s *Source) startAndWait(p []byte, off int64) error {
	done := make(outcome, 1)
	s.Start(context.Background(), p, off, done)
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return errors.New("the read was never told of")
	}
}

func TestRead(t *testing.T) {
	_, target := unixServer(t)
	s := open(t, target, Options{})
	data := image()
	zeros := make([]bool, pages)
	if err := s.Zeros(t.Context(), func(off, n int64) {
		for i := off / page; i < (off+n)/page; i++ {
			zeros[i] = true
		}
	}); err != nil {
		t.Fatal(err)
	}
	for i, z := range zeros {
		if z != (i/8%3 == 0) {
			t.Fatalf("page %d: told as zeros: %v", i, z)
		}
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			p := make([]byte, 16*page)
			off := i * len(p)
			if err := s.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
				t.Errorf("read at %d: %v", off, err)
			}
			if err := s.startAndWait(p[:page], int64(off)); err != nil || !bytes.Equal(p[:page], data[off:off+page]) {
				t.Errorf("urgent read at %d: %v", off, err)
			}
		})
	}
	wg.Wait()
}

// The server goes away while reads are asked for, and comes back: they wait, and all succeed.
func TestOutage(t *testing.T) {
	srv, target := unixServer(t)
	s := open(t, target, Options{})
	data := image()
	srv.stop()
	results := make(chan error, 40)
	for i := range 20 {
		go func() {
			p := make([]byte, page)
			err := s.ReadAt(context.Background(), p, int64(8+i)*page)
			if err == nil && !bytes.Equal(p, data[(8+i)*page:][:page]) {
				err = errors.New("wrong data")
			}
			results <- err
		}()
		go func() { results <- s.startAndWait(make([]byte, page), int64(i)*page) }()
	}
	for s.Outage() == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-results:
		t.Errorf("a read ended without a server: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	srv.start()
	for range 40 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if s.Outage() != 0 || s.Reconnects() == 0 {
		t.Errorf("outage %v, %d reconnects", s.Outage(), s.Reconnects())
	}
}

func TestOutageTooLong(t *testing.T) {
	srv, target := unixServer(t)
	s := open(t, target, Options{Timeout: 100 * time.Millisecond})
	srv.stop()
	for _, err := range []error{s.ReadAt(t.Context(), make([]byte, page), 0), s.startAndWait(make([]byte, page), 0)} {
		if !errors.Is(err, kvmhook.ErrSource) || errors.Is(err, kvmhook.ErrLost) || !strings.Contains(err.Error(), "out of reach") {
			t.Errorf("got %v", err)
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("it does not say why: %v", err)
		}
	}
}

func TestCloseEndsReads(t *testing.T) {
	srv, target := unixServer(t)
	s := open(t, target, Options{})
	srv.stop()
	done := make(outcome, 2)
	go func() { done <- s.ReadAt(context.Background(), make([]byte, page), 0) }()
	s.Start(context.Background(), make([]byte, page), 0, done)
	for s.Outage() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Stop()
	for range 2 {
		if err := <-done; !errors.Is(err, kvmhook.ErrSource) {
			t.Errorf("got %v", err)
		}
	}
}

// What comes back with another size is another image.
func TestChanged(t *testing.T) {
	srv, target := unixServer(t)
	s := open(t, target, Options{})
	srv.stop()
	srv.disk.Grow((pages + 1) * page)
	srv.start()
	if err := s.startAndWait(make([]byte, page), 0); !errors.Is(err, kvmhook.ErrSource) || !errors.Is(err, errChanged) {
		t.Errorf("got %v", err)
	}
}

// A checksum error is told of as lost content, once it happened again and again; a passing one is not.
func TestLost(t *testing.T) {
	srv, target := unixServer(t)
	s := open(t, target, Options{})
	srv.failing.Store(10)
	if err := s.startAndWait(make([]byte, page), 10*page); !errors.Is(err, kvmhook.ErrLost) {
		t.Errorf("got %v", err)
	}
	if err := s.ReadAt(t.Context(), make([]byte, page), 11*page); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	srv.passing.Store(lostTries - 1)
	if err := s.ReadAt(t.Context(), make([]byte, page), 10*page); err != nil {
		t.Errorf("a passing error: %v", err)
	}
}

func TestNoServer(t *testing.T) {
	if _, err := Open(t.Context(), nbdclient.Target{Network: "unix", Address: t.TempDir() + "/s"}, Options{}); !errors.Is(err, nbdclient.ErrDisconnected) {
		t.Errorf("got %v", err)
	}
}

// hooked is a VMM whose memory comes from a source.
func hooked(t *testing.T, s *Source) *vmmtest.Process {
	t.Helper()
	v, _ := hooktest.Serve(t, kvmhook.Options{Source: s, NoFill: true})
	return v
}

func compare(t *testing.T, a vmmtest.Answer, first int) {
	t.Helper()
	data := image()
	for i, h := range a.Hashes {
		if h != vmmtest.Hash(data[(first+i)*page:][:page]) {
			t.Fatalf("page %d: wrong content", first+i)
		}
	}
}

// Two hosts, that is, network namespaces. The cable between them is cut while the guest touches its memory, and
// plugged in again.
func TestCutCable(t *testing.T) {
	const here, there = "lsadhook0", "lsadhook1"
	ns := "lsad-hook-test"
	sh := func(line string) error {
		out, err := exec.Command("sh", "-ec", line).CombinedOutput()
		if err != nil {
			return errors.New(line + ": " + err.Error() + ": " + string(out))
		}
		return nil
	}
	if err := sh("ip netns add " + ns); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	t.Cleanup(func() { sh("ip netns del " + ns) })
	if err := sh("ip link add " + here + " type veth peer name " + there + " netns " + ns +
		"; ip addr add 10.211.7.1/24 dev " + here + "; ip link set " + here + " up" +
		"; ip -n " + ns + " addr add 10.211.7.2/24 dev " + there + "; ip -n " + ns + " link set " + there + " up"); err != nil {
		t.Skipf("no virtual network devices here: %v", err)
	}
	newServer(t, func() (l net.Listener, err error) {
		inNamespace(t, ns, func() { l, err = net.Listen("tcp", "10.211.7.2:10809") })
		return l, err
	})
	target, err := nbdclient.ParseURI("nbd://10.211.7.2/vm")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, target, Options{StallTimeout: 300 * time.Millisecond})
	v := hooked(t, s)
	touch := vmmtest.Order{Op: vmmtest.OpTouch, First: 0, Last: 200, Threads: 4}
	a, err := v.Do(touch, patience)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, a, 0)
	if err := sh("ip -n " + ns + " link set " + there + " down"); err != nil {
		t.Fatal(err)
	}
	touch.First, touch.Last = 200, pages
	waits, err := v.Begin(touch)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); s.Outage() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the outage went unnoticed")
		}
	}
	select {
	case <-waits:
		t.Fatal("the guest has pages that nobody could bring")
	default:
	}
	if err := sh("ip -n " + ns + " link set " + there + " up"); err != nil {
		t.Fatal(err)
	}
	a, err = v.Await(waits, patience)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, a, 200)
	if s.Reconnects() == 0 {
		t.Error("no connection was made anew")
	}
}

// inNamespace runs fn on a thread that is in a network namespace, and ends that thread.
func inNamespace(t *testing.T, name string, fn func()) {
	t.Helper()
	fd, err := unix.Open("/var/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Setns(fd, unix.CLONE_NEWNET)
		if err == nil {
			fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
