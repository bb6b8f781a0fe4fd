package vmmtest

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

const env = "LSAD_TEST_VMM"

// Main is the VMM, and does not return, if this process is to be one. A program that uses this package calls it first.
func Main() {
	if os.Getenv(env) != "" {
		run()
		os.Exit(0)
	}
}

// Hash of a page, as an answer has it.
func Hash(p []byte) uint64 {
	h := fnv.New64a()
	h.Write(p) // cannot fail
	return h.Sum64()
}

// run executes orders from standard input, each on a goroutine of its own, and writes answers to standard output.
func run() {
	debug.SetGCPercent(-1) // a collection would wait for those who wait for pages
	runtime.GOMAXPROCS(80)
	v := &machine{}
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var o Order
		if err := in.Decode(&o); err != nil {
			return
		}
		one := func() {
			a, err := v.do(o)
			a.ID = o.ID
			if err != nil {
				a.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			out.Encode(a)
		}
		if o.Op == OpMap {
			one()
		} else {
			go one()
		}
	}
}

// machine is what the orders work on.
type machine struct {
	fd    *uffd.FD
	mem   [][]byte
	pages []int64
}

func (v *machine) do(o Order) (Answer, error) {
	switch o.Op {
	case OpMap:
		return Answer{}, v.open(o)
	case OpTouch:
		return v.touch(o), nil
	case OpMeasure:
		return v.measure(o)
	case OpWrite:
		for i := o.First; i < o.Last; i++ {
			p := v.page(o.Region, i)
			binary.LittleEndian.PutUint64(p, uint64(i)|1<<63)
		}
		return Answer{}, nil
	case OpRemove:
		page := v.pages[o.Region]
		return Answer{}, unix.Madvise(v.mem[o.Region][int64(o.First)*page:int64(o.Last)*page], unix.MADV_DONTNEED)
	case OpUnmap:
		page := v.pages[o.Region]
		return Answer{}, unmap(v.mem[o.Region][int64(o.First)*page : int64(o.Last)*page])
	case OpMove:
		page, mem := v.pages[o.Region], v.mem[o.Region]
		if o.Last > 0 {
			_, err := move(mem[int64(o.First)*page : int64(o.Last)*page])
			return Answer{}, err
		}
		moved, err := move(mem)
		v.mem[o.Region] = moved
		return Answer{}, err
	case OpGuest:
		return runGuest(v.mem[o.Region])
	}
	return Answer{}, fmt.Errorf("no order %q", o.Op)
}

func (v *machine) page(region, i int) []byte {
	n := v.pages[region]
	return v.mem[region][int64(i)*n : int64(i+1)*n]
}

// open maps the regions, registers them, and shakes hands.
func (v *machine) open(o Order) error {
	if o.Version == 0 {
		return v.plain(o)
	}
	features := uint64(uffd.FeatureEventRemove)
	if o.Events {
		features |= uffd.FeatureEventUnmap | uffd.FeatureEventRemap
	}
	fd, err := uffd.Open(features)
	if err != nil {
		return err
	}
	v.fd = fd
	var list []map[string]any
	for _, r := range o.Regions {
		flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
		if r.Page == HugePage {
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
func (v *machine) touch(o Order) Answer {
	a := Answer{Hashes: make([]uint64, o.Last-o.First)}
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
				a.Hashes[i] = Hash(v.page(o.Region, o.First+i))
			}
			if stride > 1 {
				for i := range a.Hashes { // those that the strides left out
					if i%max(o.Threads, 1) == t && a.Hashes[i] == 0 {
						a.Hashes[i] = Hash(v.page(o.Region, o.First+i))
					}
				}
			}
		})
	}
	wg.Wait()
	return a
}

// plain maps a file, with nobody between it and the kernel.
func (v *machine) plain(o Order) error {
	f, err := os.Open(o.File)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range o.Regions {
		mem, err := unix.Mmap(int(f.Fd()), r.Offset, int(r.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		if err != nil {
			return fmt.Errorf("map %s: %w", o.File, err)
		}
		v.mem, v.pages = append(v.mem, mem), append(v.pages, r.Page)
	}
	return nil
}
