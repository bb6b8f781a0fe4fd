package kvmhook

import (
	"context"
	"fmt"
	"testing"
)

// fullSource is an image of which nothing is known to be a hole.
type fullSource struct{ *memSource }

func (s fullSource) Zeros(context.Context, func(off, n int64)) error { return nil }

// Without the fill nothing is fetched that is not touched, whatever the guest touches in a row.
func TestNoFillFetchesTouched(t *testing.T) {
	const pages, apart = 2048, 256
	runs := []int{1, 2, 3, 4, 7, 8, 16, 24, 64, 100, 128, apart}
	if raceDetector {
		runs = []int{1, 24, apart} // the length makes no difference to what runs beside what
	}
	for _, run := range runs {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("runs of %d, %d threads", run, threads), func(t *testing.T) {
				src := newMemSource(pages)
				r := newRig(t, Options{Source: fullSource{src}, NoFill: true})
				v := startVMM(t)
				v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
				touched := int64(0)
				for first := 0; first < pages; first += apart {
					check(t, v, order{First: first, Last: first + run, Threads: threads}, 0)
					touched += int64(run) * smallPage
				}
				st := r.Status()
				if got := st.ReadBytes; got < touched || got*10 > touched*11 {
					t.Errorf("%d bytes were fetched, and %d touched", got, touched)
				}
				if _, got := src.reads(); got != st.ReadBytes {
					t.Errorf("%d bytes were read, and %d are told of", got, st.ReadBytes)
				}
				r.end(v)
			})
		}
	}
}

// Zeros, which cost no transfer, come many at a time all the same.
func TestNoFillZeros(t *testing.T) {
	const pages = 2048
	src := newMemSource(pages)
	clear(src.data)
	r := newRig(t, Options{Source: &holeSource{src, 0, pages}, NoFill: true})
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
	v.do(order{Op: "touch", Last: pages})
	if st := r.Status(); st.ZeroFaults > pages/64 || st.ReadBytes != 0 {
		t.Errorf("%d faults, %d bytes read", st.ZeroFaults, st.ReadBytes)
	}
	r.end(v)
}
