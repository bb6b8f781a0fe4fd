package gc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Policy picks the segment to collect next. A Policy value belongs to one device and is not shared.
type Policy interface {
	Name() string
	// Pick chooses among the candidates that each yields; now is the current LSN. It reports false if there is
	// no candidate. It never keeps each.
	Pick(now uint64, each func(fn func(SegmentInfo) bool)) (SegmentInfo, bool)
}

var policies = map[string]func(seed uint64) Policy{
	"greedy":       func(uint64) Policy { return greedy{} },
	"cost-benefit": func(uint64) Policy { return scored{"cost-benefit", costBenefit} },
	"d-choices": func(seed uint64) Policy {
		return &dChoices{rnd: rand.New(rand.NewPCG(seed, 0))}
	},
}

// NewPolicy makes the victim policy of that name. The seed is for policies that draw lots. The error wraps
// ErrUnknown and lists the names.
func NewPolicy(name string, seed uint64) (Policy, error) {
	if f, ok := policies[name]; ok {
		return f(seed), nil
	}
	return nil, fmt.Errorf("victim policy %q, want one of %s: %w", name, strings.Join(PolicyNames(), ", "), ErrUnknown)
}

// PolicyNames lists the victim policies, sorted.
func PolicyNames() []string { return sortedKeys(policies) }

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// greedy takes the segment with the least live data, the one sealed first among equals: the best choice where
// every block is as likely to be overwritten as any other.
type greedy struct{}

func (greedy) Name() string { return "greedy" }

func (greedy) Pick(_ uint64, each func(func(SegmentInfo) bool)) (best SegmentInfo, ok bool) {
	each(func(s SegmentInfo) bool {
		if !ok || emptier(s, best) {
			best, ok = s, true
		}
		return true
	})
	return best, ok
}

// emptier orders by the share of live blocks, then by age.
func emptier(a, b SegmentInfo) bool {
	x, y := a.Live*b.Capacity, b.Live*a.Capacity
	return x < y || x == y && a.Sealed < b.Sealed
}

// scored takes the segment with the highest score.
type scored struct {
	name  string
	score func(now uint64, s SegmentInfo) float64
}

func (p scored) Name() string { return p.name }

func (p scored) Pick(now uint64, each func(func(SegmentInfo) bool)) (best SegmentInfo, ok bool) {
	top := 0.0
	each(func(s SegmentInfo) bool {
		if v := p.score(now, s); !ok || v > top {
			best, top, ok = s, v, true
		}
		return true
	})
	return best, ok
}

// costBenefit is the ratio of Rosenblum and Ousterhout (LFS, 1992), space gained times age over cost. Their cost
// is 1+u, because they read the whole segment; here only what lives is read and written, so it is u.
func costBenefit(now uint64, s SegmentInfo) float64 {
	u := float64(s.Live) / float64(s.Capacity)
	return (1 - u) / u * age(now, s.Sealed)
}

func age(now, then uint64) float64 {
	if now <= then {
		return 1
	}
	return float64(now-then) + 1
}

// choices is the d of dChoices: ten choices do nearly as well as greedy (Van Houdt, SIGMETRICS 2013).
const choices = 10

// dChoices takes the emptiest of a few segments drawn at random. Compared with greedy it lets old segments
// with little garbage go, which helps where popularity is skewed and nothing separates the blocks.
type dChoices struct{ rnd *rand.Rand }

func (*dChoices) Name() string { return "d-choices" }

func (p *dChoices) Pick(_ uint64, each func(func(SegmentInfo) bool)) (best SegmentInfo, ok bool) {
	var drawn [choices]SegmentInfo
	n := 0
	each(func(s SegmentInfo) bool { // reservoir sampling
		if n < choices {
			drawn[n] = s
		} else if i := p.rnd.IntN(n + 1); i < choices {
			drawn[i] = s
		}
		n++
		return true
	})
	for _, s := range drawn[:min(n, choices)] {
		if !ok || emptier(s, best) {
			best, ok = s, true
		}
	}
	return best, ok
}
