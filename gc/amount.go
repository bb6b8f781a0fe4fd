package gc

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Amount is a number of segments, given outright ("12") or as a share of the device's segments ("1.5%"). The
// zero Amount means "not set": the default applies. It reads and writes itself as text, so it works in TOML,
// in JSON (also as a plain number) and as a flag.
type Amount struct {
	count int
	share float64 // 0..1, used where count is zero
}

// Count is n segments.
func Count(n int) Amount { return Amount{count: n} }

// Share is a share of a device's segments, 0 to 1.
func Share(s float64) Amount { return Amount{share: s} }

// IsZero reports that the amount is not set.
func (a Amount) IsZero() bool { return a == Amount{} }

// Of is the amount in segments on a device of total segments. A share is rounded up.
func (a Amount) Of(total int) int {
	if a.count != 0 {
		return a.count
	}
	return int(math.Ceil(a.share*float64(total) - 1e-9))
}

// String is the text form: "12", "1.5%", or "" where not set.
func (a Amount) String() string {
	switch {
	case a.IsZero():
		return ""
	case a.count != 0:
		return strconv.Itoa(a.count)
	}
	return strconv.FormatFloat(math.Round(a.share*1e8)/1e6, 'f', -1, 64) + "%"
}

// MarshalText implements encoding.TextMarshaler.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It wraps ErrAmount.
func (a *Amount) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "" {
		*a = Amount{}
		return nil
	}
	if p, ok := strings.CutSuffix(s, "%"); ok {
		v, err := strconv.ParseFloat(strings.TrimSpace(p), 64)
		if err != nil || !(v > 0 && v <= 100) {
			return fmt.Errorf("amount %q: %w", s, ErrAmount)
		}
		v = math.Round(v * 1e6) // as much of it as String gives back
		if v == 0 {
			return fmt.Errorf("amount %q: %w", s, ErrAmount)
		}
		*a = Share(v / 1e8)
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fmt.Errorf("amount %q: %w", s, ErrAmount)
	}
	*a = Count(n)
	return nil
}

// UnmarshalJSON takes a string or a number.
func (a *Amount) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	return a.UnmarshalText(bytes.Trim(data, `"`))
}

// Set and Type make an Amount a command-line flag value.
func (a *Amount) Set(s string) error { return a.UnmarshalText([]byte(s)) }

// Type names the kind of value in a usage text.
func (a *Amount) Type() string { return "segments" }
