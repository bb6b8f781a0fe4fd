package lsa

import (
	"math/rand/v2"
	"testing"

	"lsad/lsa/format"
)

// Devices of different sizes: what recovery finds in a segment that the smaller
// one does not have.
func TestReopenUnequalDevices(t *testing.T) {
	r := newRigOf(t, 12, 96)
	h := r.volume("v", 12<<20)
	rng := rand.New(rand.NewPCG(6, 6))
	data := make([]byte, h.Size())
	for round := range 6 {
		for i := round * 512; i < (round+1)*512; i++ {
			p := data[i*format.BlockSize:][:format.BlockSize]
			fill(p, rng)
			if err := write(h, int64(i)*format.BlockSize, p); err != nil {
				t.Fatal(err)
			}
		}
		r.kill(rng)
		h = r.handle("v")
	}
	r.expect("in the end", h, data)
}
