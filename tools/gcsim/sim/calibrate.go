package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lsad/gc"
)

// RateFor is the rate of requests at which devices times duty cycle would be duty if collections never paused
// and nothing was in their way. What a write costs in collection is measured on one device without service
// times.
func RateFor(c Config, duty float64) (float64, error) {
	s := c.Spec
	s.Devices, s.Sizes, s.Copies, s.Blocks, s.Segments = 1, nil, 1, 0, max(256, min(1024, c.Spec.Segments))
	s.GC.Mode, s.GC.Devices = gc.DefaultOnly, nil
	wa, err := WriteAmplification(s, c.Trace, 4, time.Microsecond)
	if err != nil {
		return 0, fmt.Errorf("finding the rate for a duty of %v: %w", duty, err)
	}
	if wa < 1.002 {
		return 0, fmt.Errorf("finding the rate for a duty of %v: write amplification is %.4f, next to nothing is collected; give a --rate", duty, wa)
	}
	move := c.Service.Move.Seconds() + c.Service.Chunk.Seconds()/float64(c.Service.ChunkBlocks)
	return duty / ((wa - 1) * move * (1 - c.Trace.Reads) * float64(max(1, c.Spec.Copies))), nil
}

// WriteAmplification fills one array without service times, overwrites it with so many writes per block, each
// gap after the one before, and counts the last half.
func WriteAmplification(s Spec, trace TraceSpec, writes int, gap time.Duration) (float64, error) {
	a, err := NewArray(s)
	if err != nil {
		return 0, err
	}
	trace.Reads = 0
	n := writes * a.spec.Blocks
	t, err := NewTrace(trace, a.spec.Blocks, n)
	if err != nil {
		return 0, err
	}
	return a.Untimed(t, gap, a.spec.Blocks+n-n/2)
}

// ParseTrace takes apart a trace such as zipf:1.0.
func ParseTrace(text string, t *TraceSpec) error {
	kind, exponent, ok := strings.Cut(text, ":")
	t.Kind = kind
	if !ok {
		if t.Exponent == 0 {
			t.Exponent = 1
		}
		return nil
	}
	v, err := strconv.ParseFloat(exponent, 64)
	if err != nil {
		return fmt.Errorf("trace %q: the exponent is not a number", text)
	}
	t.Exponent = v
	return nil
}
