package kvmhook

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"lsad/internal/hugetlb"
	"lsad/kvmhook/vmmtest"
)

// holding is a hook that holds back one page of so many, until a time that the test says.
func holding(t *testing.T, every int, o Options) (r *rig, over chan time.Time) {
	t.Helper()
	over = make(chan time.Time)
	o.sampleEvery, o.sampleSeed, o.FillWorkers = every, 11, 1
	o.after = func(time.Duration) <-chan time.Time { return over }
	return newRig(t, o), over
}

// held are the pages of the only mapping that are held back.
func (r *rig) held() (pages []int) {
	r.mu.Lock()
	m := (*r.session.maps.Load())[0]
	r.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for page := range m.held {
		pages = append(pages, page)
	}
	return pages
}

func filled(t *testing.T, r *rig) {
	t.Helper()
	eventually(t, "the fill", func() bool { return r.Status().State == StateFilled })
}

// A guest uses a share of its memory that is known. What is held back finds it out, and is there in the end. The same pages
// are chosen each time; how often the interval is right is tried by TestIntervalHolds.
func TestEstimateOfUse(t *testing.T) {
	const pages = 12000
	all := []int{0, 1, 5, 9}
	if raceDetector {
		all = all[2:3] // which of them it is makes no difference to what runs beside what
	}
	for _, tenths := range all {
		t.Run(fmt.Sprintf("%d of 10", tenths), func(t *testing.T) {
			src := newMemSource(pages)
			r, over := holding(t, 16, Options{Source: src})
			v := startVMM(t)
			v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
			filled(t, r)
			st := r.Status()
			if n := st.Prefetch.HeldPages; n < 400 || n > 600 || st.ResidentBytes != st.ContentBytes-n*smallPage {
				t.Fatalf("%d of 8000 pages are held back; %+v", n, st)
			}
			_, before := src.reads()
			rng, touched, content := rand.New(rand.NewPCG(1, 2)), int64(0), int64(0)
			for first := 0; first < pages; first += 8 { // holes are in runs of 8
				if !isHole(first) {
					content += 8 * smallPage
				}
				if rng.IntN(10) < tenths {
					check(t, v, order{First: first, Last: first + 8}, 0)
					if !isHole(first) {
						touched += 8 * smallPage
					}
				}
			}
			share := float64(touched) / float64(content)
			st = r.Status()
			p := st.Prefetch
			if p.Estimate == nil || p.Estimate.Low > share || p.Estimate.High < share || p.Estimate.High-p.Estimate.Low > 0.1 {
				t.Fatalf("%v were used, the estimate is %+v", share, p.Estimate)
			}
			if got := p.Estimate; p.Bytes != content || got.UsedBytes+got.WastedBytes != p.Bytes || float64(got.UsedBytes) != float64(int64(got.UsedShare*float64(content))) {
				t.Errorf("%+v of %d bytes, %+v", p, content, got)
			}
			if st.HeldFaults != p.UsedPages || st.FetchedFaults != 0 {
				t.Errorf("%d faults on pages that were held back, %d of them used; %d fetched", st.HeldFaults, p.UsedPages, st.FetchedFaults)
			}
			over <- time.Time{}
			eventually(t, "what is held back", func() bool { return r.Status().Prefetch.HeldPages == 0 })
			st = r.Status()
			if q := st.Prefetch; q.ReleasedPages != p.HeldPages || q.Estimate.UsedShare != p.Estimate.UsedShare || st.ResidentBytes != st.ContentBytes {
				t.Errorf("%+v, then %+v", p, st)
			}
			check(t, v, order{Last: pages, Threads: 2}, 0)
			if _, after := src.reads(); after != before || r.Status().HeldFaults != p.UsedPages {
				t.Errorf("%d bytes were read for what was there", after-before)
			}
			r.end(v)
		})
	}
}

// Pages that are held back and removed are zeros for ever after, whoever asks, and whenever.
func TestRemoveHeld(t *testing.T) {
	const pages = 600
	r, over := holding(t, 2, Options{Source: newMemSource(pages)})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	filled(t, r)
	if n := len(r.held()); n < 100 {
		t.Fatalf("%d pages are held back", n)
	}
	gone := int64(0)
	for _, page := range r.held() {
		if page < 400 {
			gone++
		}
	}
	v.do(order{Op: "remove", Last: 400})
	want := func(i int) []byte {
		if i < 400 {
			return make([]byte, smallPage)
		}
		return content(i)
	}
	compare(t, v.do(order{Op: "touch", Last: 500}), order{}, want)
	eventually(t, "the removal", func() bool { return r.Status().Prefetch.DroppedPages == gone })
	over <- time.Time{}
	eventually(t, "what is held back", func() bool { return r.Status().Prefetch.HeldPages == 0 })
	v.do(order{Op: "remove", First: 450, Last: 500})
	compare(t, v.do(order{Op: "touch", Last: 450, Threads: 2}), order{}, want)
	compare(t, v.do(order{Op: "touch", First: 500, Last: pages}), order{First: 500}, want)
	if st := r.Status(); st.DroppedBytes != gone*smallPage || st.ResidentBytes != st.ContentBytes {
		t.Errorf("%+v", st)
	}
	r.end(v)
}

// Removals, faults and the release at the same time, with every page held back that can be.
func TestRemoveRacesHeld(t *testing.T) {
	const pages = 1500
	for range 5 {
		r, over := holding(t, 1, Options{Source: newMemSource(pages)})
		v := startVMM(t)
		v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
		filled(t, r)
		touching := v.start(order{Op: "touch", Last: pages, Threads: 4, Stride: 101})
		removed := func(i int) bool { return i/7%5 == 2 }
		for i := 14; i < pages; i += 35 {
			v.do(order{Op: "remove", First: i, Last: min(i+7, pages)})
			if i == 14+35*5 {
				over <- time.Time{}
			}
		}
		for i, h := range v.await(touching, "touch").Hashes {
			if h != hash(content(i)) && !removed(i) {
				t.Fatalf("page %d: wrong content", i)
			}
		}
		eventually(t, "what is held back", func() bool { return r.Status().Prefetch.HeldPages == 0 })
		compare(t, v.do(order{Op: "touch", Last: pages, Threads: 4}), order{}, func(i int) []byte {
			if removed(i) {
				return make([]byte, smallPage)
			}
			return content(i)
		})
		if st := r.Status(); st.ResidentBytes != st.ContentBytes {
			t.Errorf("%+v", st)
		}
		r.end(v)
	}
}

// Whoever goes on after a hook that was killed fetches again what that one had held back; one that ends in order leaves
// nothing behind.
func TestResumeHeld(t *testing.T) {
	const pages = 900
	for _, killed := range []bool{false, true} {
		var k keep
		r, _ := holding(t, 2, Options{Source: newMemSource(pages), Keep: k.take, killed: killed})
		v := startVMM(t)
		v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
		filled(t, r)
		v.do(order{Op: "remove", First: 600, Last: 700})
		compare(t, v.do(order{Op: "touch", First: 600, Last: 610}), order{}, func(int) []byte { return make([]byte, smallPage) })
		held := len(r.held())
		r.cancel()
		<-r.done
		src := newMemSource(pages)
		next := newRig(t, Options{Source: src, NoFill: true, Resume: k.kept()})
		compare(t, v.do(order{Op: "touch", Last: pages, Threads: 2}), order{}, func(i int) []byte {
			if i >= 600 && i < 700 {
				return make([]byte, smallPage)
			}
			return content(i)
		})
		want := int64(0)
		if killed {
			want = int64(held) * smallPage
		}
		if _, got := src.reads(); got != want || held < 100 {
			t.Errorf("killed %v: %d pages were held back, %d bytes fetched again", killed, held, got)
		}
		if st := next.Status(); st.ResidentPercent != 100 {
			t.Errorf("%+v", st)
		}
		next.end(v)
	}
}

// A page that somebody waits for already is used, and is not held back.
func TestWaitedIsUsed(t *testing.T) {
	src := newMemSource(24)
	r, _ := holding(t, 1, Options{Source: src})
	release := src.hold()
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(24)})
	eventually(t, "the fill's read", func() bool { calls, _ := src.reads(); return calls > 0 })
	waits := v.start(order{Op: "touch", First: 10, Last: 11})
	eventually(t, "the fault", func() bool { return r.Status().WaitedFaults == 1 })
	release()
	compare(t, v.await(waits, "touch"), order{First: 10}, content)
	filled(t, r)
	if st := r.Status(); st.HeldFaults != 0 || st.Prefetch.UsedPages != 1 || st.Prefetch.HeldPages != 15 || st.FilledBytes != smallPage {
		t.Errorf("%+v", st)
	}
	r.end(v)
}

// Nothing is held back where nothing is prefetched, nor of huge pages.
func TestNothingHeld(t *testing.T) {
	for _, o := range []Options{{NoFill: true}, {Record: true}} {
		o.Source = newMemSource(512)
		r, _ := holding(t, 1, o)
		v := startVMM(t)
		v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(512)})
		check(t, v, order{Last: 100}, 0)
		if p := r.Status().Prefetch; p.HeldPages+p.UsedPages+p.DroppedPages+p.ReleasedPages != 0 || p.Estimate != nil || o.NoFill && p.Bytes != 0 {
			t.Errorf("%+v", p)
		}
		r.end(v)
	}
	hugetlb.Reserve(t, 4)
	r, _ := holding(t, 1, Options{Source: newMemSource(2 * 512)})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: []vmmtest.Region{{Size: 2 * hugePage, Page: hugePage}}})
	filled(t, r)
	if p := r.Status().Prefetch; p.Bytes != 0 || p.NotSampledBytes != 2*hugePage || p.HeldPages != 0 || p.Estimate != nil {
		t.Errorf("%+v", p)
	}
	r.end(v)
}
