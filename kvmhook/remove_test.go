package kvmhook

import (
	"errors"
	"strings"
	"testing"
	"time"

	"lsad/kvmhook/uffd"
)

// Pages that the VMM removes are zeros from then on, whether they were there or not.
func TestRemove(t *testing.T) {
	r := newRig(t, Options{Source: newMemSource(512), NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(512)})
	check(t, v, order{Last: 200, Threads: 4}, 0)
	v.do(order{Op: "remove", First: 100, Last: 300})
	for range 2 {
		compare(t, v.do(order{Op: "touch", Last: 512, Threads: 4}), order{}, func(i int) []byte {
			if i >= 100 && i < 300 {
				return make([]byte, smallPage)
			}
			return content(i)
		})
	}
	v.do(order{Op: "write", First: 150, Last: 160})
	v.do(order{Op: "remove", First: 155, Last: 160})
	compare(t, v.do(order{Op: "touch", First: 155, Last: 160}), order{First: 155}, func(int) []byte { return make([]byte, smallPage) })
	if a := v.do(order{Op: "touch", First: 150, Last: 151}); a.Hashes[0] == hash(make([]byte, smallPage)) {
		t.Error("a written page lost its content")
	}
	if st := r.Status(); st.RemovedBytes != 205*smallPage {
		t.Errorf("%d bytes removed", st.RemovedBytes)
	}
	r.end(v)
}

// Pages are removed while their content is on the way: whoever waits goes on with zeros at once, and the answer comes too
// late. A page between them that was not removed gets its content.
func TestRemoveRacesFetch(t *testing.T) {
	src := newMemSource(512)
	r := newRig(t, Options{Source: src, NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(512)})
	zero := func(int) []byte { return make([]byte, smallPage) }
	release := src.hold()
	removed := v.start(order{Op: "touch", First: 8, Last: 11, Threads: 3})
	stays := v.start(order{Op: "touch", First: 11, Last: 12})
	eventually(t, "the faults", func() bool { return r.Status().FetchedFaults+r.Status().WaitedFaults >= 4 })
	v.do(order{Op: "remove", First: 8, Last: 11})
	compare(t, v.await(removed, "touch"), order{First: 8}, zero)
	release()
	compare(t, v.await(stays, "touch"), order{First: 11}, content)
	compare(t, v.do(order{Op: "touch", First: 8, Last: 11}), order{First: 8}, zero)
	r.end(v)
}

// Content that arrives after the removal was read from the kernel, and before it was taken note of, must not be
// installed: the kernel would let it.
func TestRemoveShutsOut(t *testing.T) {
	src := newMemSource(64)
	release := src.hold()
	removed := make(chan answer, 1)
	r := newRig(t, Options{Source: src, NoFill: true, afterRead: func(m *uffd.Messages) {
		for i := range m.Len() {
			if m.At(i).Event == uffd.EventRemove {
				<-removed
				release()
				time.Sleep(50 * time.Millisecond) // in which it would be installed
			}
		}
	}})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(64)})
	waits := v.start(order{Op: "touch", First: 9, Last: 10})
	eventually(t, "the fetch", func() bool { calls, _ := src.reads(); return calls > 0 })
	a := v.start(order{Op: "remove", First: 9, Last: 10})
	go func() { removed <- <-a }()
	zero := func(int) []byte { return make([]byte, smallPage) }
	compare(t, v.await(waits, "touch"), order{First: 9}, zero)
	compare(t, v.do(order{Op: "touch", First: 9, Last: 10}), order{First: 9}, zero)
	r.end(v)
}

// Removals all over the image while the fill runs and threads touch it: zeros for ever after, and
// everything else is whole.
func TestRemoveRacesFill(t *testing.T) {
	const pages = 6000
	r := newRig(t, Options{Source: newMemSource(pages)})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	touching := v.start(order{Op: "touch", Last: pages, Threads: 4, Stride: 101})
	removed := func(i int) bool { return i/7%5 == 2 }
	for i := 0; i < pages; i++ {
		if removed(i) {
			end := min(i+7-i%7, pages)
			v.do(order{Op: "remove", First: i, Last: end})
			i = end - 1
		}
	}
	for i, h := range v.await(touching, "touch").Hashes {
		// A page that is removed while it is read may be half this and half that.
		if h != hash(content(i)) && !removed(i) {
			t.Fatalf("page %d: wrong content", i)
		}
	}
	eventually(t, "the fill", func() bool { return r.Status().State == StateFilled })
	compare(t, v.do(order{Op: "touch", Last: pages, Threads: 4}), order{}, func(i int) []byte {
		if removed(i) {
			return make([]byte, smallPage)
		}
		return content(i)
	})
	r.end(v)
}

// A VMM may unmap and move its memory, if it has that told.
func TestUnmapAndMove(t *testing.T) {
	for _, noFill := range []bool{true, false} {
		r := newRig(t, Options{Source: newMemSource(512), NoFill: noFill})
		v := startVMM(t)
		v.do(order{Op: "map", Socket: r.socket, Version: 3, Events: true, Regions: small(512)})
		check(t, v, order{Last: 100, Threads: 2}, 0)
		v.do(order{Op: "move"})
		check(t, v, order{Last: 300, Threads: 2}, 0)
		v.do(order{Op: "unmap", First: 350, Last: 400})
		check(t, v, order{First: 300, Last: 350, Threads: 2}, 0)
		check(t, v, order{First: 400, Last: 512, Threads: 2}, 0)
		r.end(v)
	}
}

// A part of a mapping cannot be followed elsewhere: that ends the hook with a reason.
func TestMoveOfPart(t *testing.T) {
	r := newRig(t, Options{Source: newMemSource(512), NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Events: true, Regions: small(512)})
	v.start(order{Op: "move", First: 100, Last: 200})
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatal("the hook goes on")
	}
	if !errors.Is(r.err, ErrMemory) || !strings.Contains(r.err.Error(), "moved") {
		t.Errorf("Serve: %v", r.err)
	}
}
