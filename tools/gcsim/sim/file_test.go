package sim

import (
	"errors"
	"strings"
	"testing"
)

const traceSample = `419,W,8192,8192,1577808144360767
419,R,8192,4096,1577808144360867

725,w,0,4096,1577808144361867
419,W,4096,16384,1577808145361867
`

func TestReadTrace(t *testing.T) {
	tr, err := ReadTrace(strings.NewReader(traceSample), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []Op{
		{Block: 0, Blocks: 2},
		{Block: 0, Blocks: 1, Read: true, Gap: 100e-6},
		{Block: 2, Blocks: 1, Gap: 1000e-6},
		{Block: 3, Blocks: 1, Gap: 1}, // 4096 was not seen before 8192
		{Block: 0, Blocks: 2},
		{Block: 4, Blocks: 1},
	}
	if tr.Blocks() != 5 || tr.Requests() != len(want) {
		t.Fatalf("%d blocks, %d requests", tr.Blocks(), tr.Requests())
	}
	for i, w := range want {
		got, ok := tr.Next()
		if !ok || got.Block != w.Block || got.Blocks != w.Blocks || got.Read != w.Read || got.Gap < w.Gap*.999 || got.Gap > w.Gap*1.001 {
			t.Errorf("request %d: %+v, want %+v", i, got, w)
		}
	}
	if _, ok := tr.Next(); ok {
		t.Error("a request after the last")
	}
	if op, ok := tr.Again().Next(); !ok || op.Blocks != 2 {
		t.Error("the trace does not start again")
	}
	if one, err := ReadTrace(strings.NewReader(traceSample), 1); err != nil || one.Requests() != 1 {
		t.Errorf("limited to one line: %v", err)
	}
}

func TestReadTraceRefuses(t *testing.T) {
	for _, bad := range []string{"", "1,W,0,4096", "1,W,0,4096,5,6", "x,W,0,4096,5", "1,X,0,4096,5", "1,W,-1,4096,5", "1,W,0,0,5",
		"1,W,0,99999999999,5", "1,W,9223372036854775807,4096,5", "1,W,0,4096,now", strings.Repeat("9", 5000)} {
		if _, err := ReadTrace(strings.NewReader(bad), 0); err == nil {
			t.Errorf("%.40q was taken", bad)
		} else if len(bad) < 4096 && !errors.Is(err, ErrTrace) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add(traceSample)
	f.Add("1,R,0,4096,5\n1,W,4611686018427387904,67108864,6\n")
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := ReadTrace(strings.NewReader(text), 100)
		if err != nil {
			return
		}
		for {
			op, ok := tr.Next()
			if !ok {
				return
			}
			if op.Blocks == 0 || int(op.Block)+int(op.Blocks) > tr.Blocks() || op.Gap < 0 {
				t.Fatalf("%+v of a trace of %d blocks", op, tr.Blocks())
			}
		}
	})
}

func TestGeneratedTraces(t *testing.T) {
	const blocks, n = 1000, 200_000
	share := func(s TraceSpec, top int) float64 { // of the requests that go to the top blocks
		tr, err := NewTrace(s, blocks, n)
		if err != nil {
			t.Fatal(err)
		}
		counts := make([]int, blocks)
		for op, ok := tr.Next(); ok; op, ok = tr.Next() {
			counts[op.Block]++
		}
		sum := 0
		for range top {
			best := 0
			for b := range counts {
				if counts[b] > counts[best] {
					best = b
				}
			}
			sum += counts[best]
			counts[best] = 0
		}
		return float64(sum) / n
	}
	for _, c := range []struct {
		spec   TraceSpec
		top    int
		lo, hi float64
	}{
		{TraceSpec{Kind: "uniform"}, 100, .10, .13},
		{TraceSpec{Kind: "sequential"}, 100, .0999, .1001},
		{TraceSpec{Kind: "zipf", Exponent: 1}, 1, .130, .137}, // 1/H(1000) is 0.1336
		{TraceSpec{Kind: "zipf", Exponent: 1}, 10, .385, .40},
		{TraceSpec{Kind: "reshuffled", Exponent: 1}, 2, .13, .15},
		{TraceSpec{Kind: "hotcold", Hot: .1, Heat: .9}, 100, .89, .91},
	} {
		if got := share(c.spec, c.top); got < c.lo || got > c.hi {
			t.Errorf("%+v: %.4f of the requests go to the first %d, want %v to %v", c.spec, got, c.top, c.lo, c.hi)
		}
	}
	for _, bad := range []TraceSpec{{Kind: "zipf"}, {Kind: "hotcold"}, {Kind: "random"}} {
		if _, err := NewTrace(bad, blocks, n); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
