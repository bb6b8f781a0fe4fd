package kvmhook

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// The VMM of the tests is a process of its own, this test's program again: a goroutine that waits for a page stops the
// runtime that it is in.

const vmmEnv = "KVMHOOK_TEST_VMM"

func TestMain(m *testing.M) {
	if os.Getenv(vmmEnv) != "" {
		vmmMain()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// order is what a test has its VMM do.
type order struct {
	ID      int
	Op      string // "map", "touch", "write", "remove", "guest"
	Socket  string
	Version int // of the handshake: 1, 2 or 3
	Regions []vmmRegion
	Region  int
	First   int // pages
	Last    int
	Threads int
	Stride  int // touch every so many pages, in the end each of them once
}

type vmmRegion struct {
	Size, Offset, Page int64
}

type answer struct {
	ID     int
	Err    string
	Hashes []uint64 // per page touched, from First on
	Regs   [2]uint64
}

func hash(p []byte) uint64 {
	h := fnv.New64a()
	h.Write(p)
	return h.Sum64()
}

// vmmMain runs orders from standard input, each on a goroutine of its own, and writes answers to standard output.
func vmmMain() {
	debug.SetGCPercent(-1) // a collection would wait for those who wait for pages
	runtime.GOMAXPROCS(80)
	v := &vmm{}
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return
		}
		run := func() {
			a, err := v.do(o)
			a.ID = o.ID
			if err != nil {
				a.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			out.Encode(a)
		}
		if o.Op == "map" {
			run()
		} else {
			go run()
		}
	}
}

type vmm struct {
	fd    *uffd.FD
	mem   [][]byte
	pages []int64
}

func (v *vmm) do(o order) (answer, error) {
	switch o.Op {
	case "map":
		return answer{}, v.open(o)
	case "touch":
		return v.touch(o), nil
	case "write":
		for i := o.First; i < o.Last; i++ {
			p := v.page(o.Region, i)
			binary.LittleEndian.PutUint64(p, uint64(i)|1<<63)
		}
		return answer{}, nil
	case "remove":
		page := v.pages[o.Region]
		return answer{}, unix.Madvise(v.mem[o.Region][int64(o.First)*page:int64(o.Last)*page], unix.MADV_DONTNEED)
	case "guest":
		return runGuest(v.mem[o.Region])
	}
	return answer{}, fmt.Errorf("no order %q", o.Op)
}

func (v *vmm) page(region, i int) []byte {
	n := v.pages[region]
	return v.mem[region][int64(i)*n : int64(i+1)*n]
}

// open maps the regions, registers them, and shakes hands.
func (v *vmm) open(o order) error {
	fd, err := uffd.Open(uffd.FeatureEventRemove)
	if err != nil {
		return err
	}
	v.fd = fd
	var list []map[string]any
	for _, r := range o.Regions {
		flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
		if r.Page == hugePage {
			flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB
		}
		mem, err := unix.Mmap(-1, 0, int(r.Size), unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			return fmt.Errorf("map: %w", err)
		}
		if err := fd.Register(mem); err != nil {
			return err
		}
		v.mem, v.pages = append(v.mem, mem), append(v.pages, r.Page)
		one := map[string]any{"base_host_virt_addr": uffd.Address(mem), "size": r.Size, "offset": r.Offset}
		if o.Version >= 2 {
			one["page_size_kib"] = r.Page
		}
		if o.Version >= 3 {
			one["page_size"] = r.Page
		}
		list = append(list, one)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", o.Socket)
	if err != nil {
		return err
	}
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix(text, unix.UnixRights(fd.Fd()), nil)
	return err // the connection stays open, as Firecracker's does
}

// touch reads pages from many threads, each its share, and returns their hashes.
func (v *vmm) touch(o order) answer {
	a := answer{Hashes: make([]uint64, o.Last-o.First)}
	stride := max(o.Stride, 1)
	var wg sync.WaitGroup
	for t := range max(o.Threads, 1) {
		wg.Go(func() {
			runtime.LockOSThread()
			for k := range len(a.Hashes) {
				// Every stride-th page, then those after them, and so on.
				rows := (len(a.Hashes) + stride - 1) / stride
				i := k%rows*stride + k/rows
				if k >= rows*stride || i >= len(a.Hashes) || i%max(o.Threads, 1) != t {
					continue
				}
				a.Hashes[i] = hash(v.page(o.Region, o.First+i))
			}
			if stride > 1 {
				for i := range a.Hashes { // those that the strides left out
					if i%max(o.Threads, 1) == t && a.Hashes[i] == 0 {
						a.Hashes[i] = hash(v.page(o.Region, o.First+i))
					}
				}
			}
		})
	}
	wg.Wait()
	return a
}

// vmmProcess is the test's side of a VMM.
type vmmProcess struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu      sync.Mutex
	id      int
	waiting map[int]chan answer
}

func needUffd(t testing.TB) {
	t.Helper()
	fd, err := uffd.Open(uffd.FeatureEventRemove)
	if err != nil {
		t.Skipf("no userfaultfd here (it needs root, or the sysctl vm.unprivileged_userfaultfd): %v", err)
	}
	fd.Close()
}

func startVMM(t testing.TB) *vmmProcess {
	t.Helper()
	needUffd(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), vmmEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v := &vmmProcess{t: t, cmd: cmd, stdin: stdin, ended: make(chan struct{}), waiting: make(map[int]chan answer)}
	go func() {
		dec := json.NewDecoder(stdout)
		for {
			var a answer
			if err := dec.Decode(&a); err != nil {
				break
			}
			v.mu.Lock()
			c := v.waiting[a.ID]
			delete(v.waiting, a.ID)
			v.mu.Unlock()
			c <- a
		}
		cmd.Wait()
		close(v.ended)
	}()
	t.Cleanup(func() {
		v.kill()
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("the VMM said: %.2000s", stderr.String())
		}
	})
	return v
}

func (v *vmmProcess) kill() {
	v.cmd.Process.Kill()
	<-v.ended
}

// start gives an order and returns where its answer comes.
func (v *vmmProcess) start(o order) <-chan answer {
	c := make(chan answer, 1)
	v.mu.Lock()
	v.id++
	o.ID = v.id
	v.waiting[o.ID] = c
	v.mu.Unlock()
	if err := json.NewEncoder(v.stdin).Encode(o); err != nil {
		v.t.Fatal(err)
	}
	return c
}

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

func (v *vmmProcess) await(c <-chan answer, what string) answer {
	v.t.Helper()
	select {
	case a := <-c:
		if a.Err != "" {
			v.t.Fatalf("VMM: %s: %s", what, a.Err)
		}
		return a
	case <-v.ended:
		v.t.Fatalf("VMM: %s: it has ended: %v", what, v.cmd.ProcessState)
	case <-time.After(patience):
		v.t.Fatalf("VMM: %s: no answer", what)
	}
	return answer{}
}

func (v *vmmProcess) do(o order) answer {
	v.t.Helper()
	return v.await(v.start(o), o.Op)
}
