package kvmhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/hugetlb"
	"lsad/kvmhook/vmmtest"
)

// rig is a hook that waits for a VMM.
type rig struct {
	*Hook
	t      testing.TB
	socket string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Serve, once done is closed
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	needUffd(t)
	o.Logger = slog.New(slog.NewTextHandler(testLog{t}, nil))
	h, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Hook: h, t: t, socket: filepath.Join(t.TempDir(), "s"), done: make(chan struct{})}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		r.err = h.Serve(ctx, l)
		close(r.done)
	}()
	t.Cleanup(func() {
		r.cancel()
		<-r.done
	})
	return r
}

// end kills the VMM and demands that the hook ends by itself, without an error.
func (r *rig) end(v *vmm) {
	r.t.Helper()
	v.Kill()
	<-r.done
	if r.err != nil {
		r.t.Errorf("Serve: %v", r.err)
	}
}

func small(pages int) []vmmtest.Region {
	return []vmmtest.Region{{Size: int64(pages) * smallPage, Page: smallPage}}
}

// check touches pages of a region that begins at page offset of the image, and compares them.
func check(t testing.TB, v *vmm, o order, offset int) {
	t.Helper()
	o.Op = "touch"
	compare(t, v.do(o), o, func(i int) []byte { return content(offset + i) })
}

func compare(t testing.TB, a answer, o order, want func(i int) []byte) {
	t.Helper()
	wrong := 0
	for i, h := range a.Hashes {
		if h != hash(want(o.First+i)) {
			if wrong++; wrong < 5 {
				t.Errorf("region %d, page %d: wrong content", o.Region, o.First+i)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d pages are wrong", wrong, len(a.Hashes))
	}
}

// Every version of the handshake, several mappings, many threads, with and without the fill.
func TestServe(t *testing.T) {
	const pages = 2048
	for version := 1; version <= 3; version++ {
		for _, noFill := range []bool{true, false} {
			t.Run(fmt.Sprintf("version %d, fill %v", version, !noFill), func(t *testing.T) {
				src := newMemSource(pages)
				r := newRig(t, Options{Source: src, NoFill: noFill})
				v := startVMM(t)
				half := int64(pages / 2 * smallPage)
				v.do(order{Op: "map", Socket: r.socket, Version: version, Regions: []vmmtest.Region{{Size: half, Offset: half, Page: smallPage}, {Size: half, Page: smallPage}}})
				first := v.start(order{Op: "touch", Region: 0, First: 0, Last: pages / 2, Threads: 24, Stride: 37})
				second := v.start(order{Op: "touch", Region: 1, First: 0, Last: pages / 2, Threads: 8})
				compare(t, v.await(first, "touch"), order{Region: 0}, func(i int) []byte { return content(pages/2 + i) })
				compare(t, v.await(second, "touch"), order{Region: 1}, content)
				data := int64(0)
				for i := range pages {
					if !isHole(i) {
						data += smallPage
					}
				}
				if _, got := src.reads(); got != data {
					t.Errorf("%d bytes were read, the image has %d", got, data)
				}
				r.end(v)
			})
		}
	}
}

// The source is needed until the last fetch of a fault has come; and what that leaves out, because one of its pages is
// lost to the source for a moment, is filled before the hook says that everything is there.
func TestFilledWaitsForFetches(t *testing.T) {
	const pages, page = 4000, 3008
	src := newMemSource(pages)
	begun, goOn := make(chan int64, 1), make(chan struct{})
	var urgentFirst, lostOnce sync.Once
	asked := make(chan struct{}) // the fill waits for the fault, which is to be first with its page
	src.asked = func(_, n int64, urgent bool) {
		if !urgent {
			<-asked
			return
		}
		urgentFirst.Do(func() {
			begun <- n
			close(asked)
			<-goOn
		})
	}
	src.fail = func(off, _ int64) (err error) {
		if off == page*smallPage {
			lostOnce.Do(func() { err = ErrLost })
		}
		return err
	}
	r := newRig(t, Options{Source: src})
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	touched := v.start(order{Op: "touch", First: page, Last: page + 1})
	there := func(lacking int64) bool {
		st := r.Status()
		return st.ResidentBytes+st.Prefetch.HeldPages*smallPage == st.ContentBytes-lacking
	}
	n := <-begun
	if n == smallPage {
		t.Fatal("the fault's page came without neighbours")
	}
	eventually(t, "all but the fault's pages", func() bool { return there(n) })
	for range 50 {
		if st := r.Status().State; st == StateFilled {
			t.Fatal("filled, and a fetch is under way")
		}
		time.Sleep(time.Millisecond)
	}
	release()
	compare(t, v.await(touched, "touch"), order{First: page}, content)
	eventually(t, "the fill", func() bool { return r.Status().State == StateFilled })
	if !there(0) {
		t.Errorf("filled: %+v", r.Status())
	}
	r.end(v)
}

// Without touching anything, the fill brings everything that is not a hole.
func TestFill(t *testing.T) {
	src := newMemSource(1000)
	var asked []int64
	src.asked = func(off, n int64, _ bool) {
		src.mu.Lock()
		defer src.mu.Unlock()
		asked = append(asked, off/smallPage)
	}
	r := newRig(t, Options{Source: src, FillWorkers: 1, WorkingSet: &WorkingSet{ChunkBytes: 64 << 10, Chunks: []int64{50, 3, 61, 4}}})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(1000)})
	eventually(t, "the fill", func() bool { return r.Status().State == StateFilled })
	if got, want := fmt.Sprint(asked[:min(8, len(asked))]), "[800 56 976 64 8 32 80 104]"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	st := r.Status()
	if st.Faults != 0 || st.ResidentBytes+st.Prefetch.HeldPages*smallPage != st.ContentBytes {
		t.Errorf("%+v", st)
	}
	check(t, v, order{Last: 1000, Threads: 2}, 0)
	r.end(v)
}

// Chunks of a working set may be larger than a read, and mappings may begin in the midst of one.
func TestLargeChunks(t *testing.T) {
	const pages = 3000
	r := newRig(t, Options{Source: newMemSource(pages), WorkingSet: &WorkingSet{ChunkBytes: 8 << 20, Chunks: []int64{1, 0}}})
	v := startVMM(t)
	const skip = 5
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: []vmmtest.Region{{Size: (pages - skip) * smallPage, Offset: skip * smallPage, Page: smallPage}}})
	eventually(t, "the fill", func() bool { return r.Status().State == StateFilled })
	check(t, v, order{Last: pages - skip, Threads: 2}, skip)
	if st := r.Status(); st.FetchedFaults != 0 || st.ResidentBytes != st.ContentBytes {
		t.Errorf("%+v", st)
	}
	r.end(v)
}

// Threads that wait for the same page cost one read.
func TestCoalesce(t *testing.T) {
	src := newMemSource(64)
	r := newRig(t, Options{Source: src, NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(64)})
	release := src.hold()
	var all []<-chan answer
	for range 16 {
		all = append(all, v.start(order{Op: "touch", First: 9, Last: 10}))
	}
	eventually(t, "the faults", func() bool { return r.Status().Faults >= 16 })
	release()
	for _, c := range all {
		compare(t, v.await(c, "touch"), order{First: 9}, content)
	}
	if calls, _ := src.reads(); calls != 1 {
		t.Errorf("%d reads", calls)
	}
	r.end(v)
}

// More pages are waited for at once than fetches can be under way.
func TestBacklog(t *testing.T) {
	const pages = 70 * 24
	src := newMemSource(pages)
	r := newRig(t, Options{Source: src, NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	release := src.hold()
	var all []<-chan answer
	for i := range 70 {
		all = append(all, v.start(order{Op: "touch", First: i*24 + 8, Last: i*24 + 9}))
	}
	eventually(t, "the faults", func() bool { return r.Status().FetchedFaults >= 70 })
	if calls, _ := src.reads(); calls > maxFetches {
		t.Errorf("%d reads at once", calls)
	}
	release()
	for i, c := range all {
		compare(t, v.await(c, "touch"), order{First: i*24 + 8}, content)
	}
	r.end(v)
}

// A page that the source has lost gives a memory error; its neighbours do not, whether it was asked for alone, by the
// fill, or as a neighbour.
func TestLost(t *testing.T) {
	for _, how := range []string{"alone", "fill", "neighbour"} {
		t.Run(how, func(t *testing.T) {
			src := newMemSource(64)
			src.fail = func(off, n int64) error {
				if off <= 10*smallPage && off+n > 10*smallPage {
					return fmt.Errorf("a bad checksum: %w", ErrLost)
				}
				return nil
			}
			held := make(chan struct{})
			src.asked = func(_, _ int64, urgent bool) {
				if how == "neighbour" && !urgent {
					<-held
				}
			}
			o := Options{Source: src, NoFill: how == "alone"}
			if how == "neighbour" { // all that the fill has is a page at the end
				o.FillWorkers, o.WorkingSet = 1, &WorkingSet{ChunkBytes: smallPage, Chunks: []int64{60}}
			}
			r := newRig(t, o)
			v := startVMM(t)
			v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(64)})
			switch how {
			case "fill":
				eventually(t, "the fill", func() bool { return r.Status().State == StateFilled })
			case "neighbour":
				eventually(t, "the fill's page", func() bool { calls, _ := src.reads(); return calls > 0 })
			}
			check(t, v, order{First: 9, Last: 10}, 0)
			check(t, v, order{First: 11, Last: 12}, 0)
			check(t, v, order{First: 0, Last: 10, Threads: 3}, 0)
			check(t, v, order{First: 11, Last: 60, Threads: 3}, 0)
			close(held)
			check(t, v, order{First: 60, Last: 64, Threads: 3}, 0)
			v.start(order{Op: "touch", First: 10, Last: 11})
			<-v.Ended() // of a memory error, which a Go program does not survive
			if state, _ := v.State(); state.Success() || !strings.Contains(state.String(), "exit status 2") && !strings.Contains(state.String(), "bus error") {
				t.Errorf("the VMM ended with %v", state)
			}
			if st := r.Status(); st.PoisonedBytes != smallPage {
				t.Errorf("%d bytes poisoned", st.PoisonedBytes)
			}
			r.end(v)
		})
	}
}

// An error of the source that is not about a page ends the hook; nothing wrong is installed.
func TestSourceEnds(t *testing.T) {
	src := newMemSource(64)
	broken := errors.New("broken")
	src.fail = func(int64, int64) error { return fmt.Errorf("%w: %w", ErrSource, broken) }
	r := newRig(t, Options{Source: src, NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(64)})
	v.start(order{Op: "touch", First: 9, Last: 10})
	<-r.done
	if !errors.Is(r.err, ErrSource) || !errors.Is(r.err, broken) {
		t.Errorf("Serve: %v", r.err)
	}
}

// The recorded order is the order of touches, and a second run that has it needs few demanded reads.
func TestWorkingSet(t *testing.T) {
	const pages = 8192
	touch := func(r *rig, v *vmm) {
		for _, chunk := range []int{400, 7, 230, 8, 9, 12, 100} {
			check(t, v, order{First: chunk * 16, Last: chunk*16 + 16, Threads: 1}, 0)
		}
	}
	r := newRig(t, Options{Source: newMemSource(pages), Record: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	touch(r, v)
	first := r.Status().FetchedFaults
	r.end(v)
	set := r.Recorded()
	if got := fmt.Sprint(set.Chunks); got != "[400 7 230 8 9 12 100]" {
		t.Errorf("recorded %v", got)
	}

	src := newMemSource(pages)
	var filled atomic.Int64
	src.asked = func(_, _ int64, urgent bool) {
		if !urgent && filled.Add(1) > 14 { // the working set, and then nothing
			release := src.hold()
			t.Cleanup(release)
		}
	}
	r = newRig(t, Options{Source: src, WorkingSet: set, FillWorkers: 1})
	v = startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	eventually(t, "the working set", func() bool { return r.Status().FilledBytes >= 7*8*smallPage })
	touch(r, v)
	if second := r.Status().FetchedFaults; second*3 > first {
		t.Errorf("%d demanded reads with a working set, %d without", second, first)
	}
	src.mu.Lock()
	src.asked = nil
	src.mu.Unlock()
}

func TestHugePages(t *testing.T) {
	needUffd(t)
	hugetlb.Reserve(t, 8)
	src := newMemSource(3 * 512)
	for i := 512; i < 1024; i++ { // the second one is a hole altogether
		clear(src.data[i*smallPage : (i+1)*smallPage])
	}
	whole := &holeSource{src, 512, 1024}
	for _, noFill := range []bool{true, false} {
		t.Run(fmt.Sprintf("fill %v", !noFill), func(t *testing.T) {
			r := newRig(t, Options{Source: whole, NoFill: noFill})
			v := startVMM(t)
			v.do(order{Op: "map", Socket: r.socket, Version: 2, Regions: []vmmtest.Region{{Size: 3 * hugePage, Page: hugePage}}})
			want := func(i int) []byte { return src.data[i*hugePage : (i+1)*hugePage] }
			compare(t, v.do(order{Op: "touch", Last: 3, Threads: 3}), order{}, want)
			v.do(order{Op: "remove", First: 0, Last: 1})
			compare(t, v.do(order{Op: "touch", Last: 1}), order{}, func(int) []byte { return make([]byte, hugePage) })
			if st := r.Status(); st.ReadBytes != 2*hugePage || st.ZeroFaults < 2 {
				t.Errorf("%+v", st)
			}
			r.end(v)
		})
	}
}

// holeSource tells a range of pages as zeros besides.
type holeSource struct {
	*memSource
	first, last int
}

func (s *holeSource) Zeros(ctx context.Context, fn func(off, n int64)) error {
	fn(int64(s.first)*smallPage, int64(s.last-s.first)*smallPage)
	return nil
}
