package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Op is one request of a trace: Blocks consecutive blocks from Block.
type Op struct {
	Block  uint32
	Blocks uint32
	Read   bool
	// Gap is the time since the previous request in seconds, or negative where the trace leaves it to the
	// simulated load.
	Gap float64
}

// Trace yields requests until it returns false.
type Trace interface {
	Next() (Op, bool)
}

// Kinds lists the generated traces.
var Kinds = []string{"uniform", "zipf", "hotcold", "sequential", "reshuffled"}

// TraceSpec describes a generated trace.
type TraceSpec struct {
	Kind     string  `json:"kind"`     // one of Kinds
	Exponent float64 `json:"exponent"` // of zipf and reshuffled
	Hot      float64 `json:"hot"`      // hotcold: this share of the blocks
	Heat     float64 `json:"heat"`     // hotcold: takes this share of the requests
	Reads    float64 `json:"reads"`    // share of reads
	Seed     uint64  `json:"seed"`
}

// generator draws blocks independently, reads apart from writes but from the same distribution.
type generator struct {
	rnd   *rand.Rand
	left  int
	half  int // reshuffle when so many are left
	reads float64
	draw  func() uint32
	shake func()
}

func (g *generator) Next() (Op, bool) {
	if g.left == 0 {
		return Op{}, false
	}
	if g.left == g.half && g.shake != nil {
		g.shake()
	}
	g.left--
	return Op{Block: g.draw(), Blocks: 1, Read: g.reads > 0 && g.rnd.Float64() < g.reads, Gap: -1}, true
}

// NewTrace makes a generated trace of n requests to blocks 0 to blocks-1.
func NewTrace(s TraceSpec, blocks, n int) (Trace, error) {
	rnd := rand.New(rand.NewPCG(s.Seed, 17))
	g := &generator{rnd: rnd, left: n, half: n / 2, reads: s.Reads}
	switch s.Kind {
	case "uniform":
		g.draw = func() uint32 { return uint32(rnd.IntN(blocks)) }
	case "zipf", "reshuffled":
		if !(s.Exponent > 0 && s.Exponent < 10) {
			return nil, fmt.Errorf("trace %s: exponent %v, want one between 0 and 10", s.Kind, s.Exponent)
		}
		order := permutation(rnd, blocks)
		z := newZipf(s.Exponent, blocks)
		g.draw = func() uint32 { return order[z.draw(rnd)] }
		if s.Kind == "reshuffled" {
			g.shake = func() { rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] }) }
		}
	case "hotcold":
		if !(s.Hot > 0 && s.Hot < 1 && s.Heat > 0 && s.Heat < 1) {
			return nil, fmt.Errorf("trace hotcold: hot %v, heat %v, want both between 0 and 1", s.Hot, s.Heat)
		}
		order := permutation(rnd, blocks)
		hot := max(1, int(s.Hot*float64(blocks)))
		g.draw = func() uint32 {
			if rnd.Float64() < s.Heat {
				return order[rnd.IntN(hot)]
			}
			return order[hot+rnd.IntN(blocks-hot)]
		}
	case "sequential":
		next := -1
		g.draw = func() uint32 { next = (next + 1) % blocks; return uint32(next) }
	default:
		return nil, fmt.Errorf("trace %q, want one of %v", s.Kind, Kinds)
	}
	return g, nil
}

func permutation(rnd *rand.Rand, n int) []uint32 {
	p := make([]uint32, n)
	for i := range p {
		p[i] = uint32(i)
	}
	rnd.Shuffle(n, func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}

// zipf draws rank r, from 0, with a probability proportional to 1/(r+1)^s, by Walker's alias method.
type zipf struct {
	keep  []float64
	alias []uint32
}

func newZipf(s float64, n int) *zipf {
	z := &zipf{keep: make([]float64, n), alias: make([]uint32, n)}
	sum := 0.0
	for i := range z.keep {
		z.keep[i] = math.Pow(float64(i+1), -s)
		sum += z.keep[i]
	}
	var small, large []uint32
	for i := range z.keep {
		z.keep[i] *= float64(n) / sum
		if z.keep[i] < 1 {
			small = append(small, uint32(i))
		} else {
			large = append(large, uint32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		a, b := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		z.alias[a] = b
		if z.keep[b] -= 1 - z.keep[a]; z.keep[b] < 1 {
			large = large[:len(large)-1]
			small = append(small, b)
		}
	}
	for _, i := range append(small, large...) {
		z.keep[i] = 1
	}
	return z
}

func (z *zipf) draw(rnd *rand.Rand) uint32 {
	i := uint32(rnd.IntN(len(z.keep)))
	if rnd.Float64() < z.keep[i] {
		return i
	}
	return z.alias[i]
}
