package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, above zero, that reads and writes itself as text
// such as "512MiB". It works in TOML (also as a plain number) and as a flag.
type Size int64

// Units, each 1024 times the one before it.
const (
	KiB Size = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
	PiB
	EiB
)

var units = []struct {
	name string
	size Size
}{{"EiB", EiB}, {"PiB", PiB}, {"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}}

// ParseSize reads a whole number of bytes with an optional unit: B, or K, M, G,
// T, P, E with or without iB, all powers of 1024 and in either case. KB, MB
// and so on are refused, because people mean different things by them.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	digits := strings.TrimRightFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	unit := strings.TrimSpace(text[len(digits):])
	if strings.ContainsAny(digits, ".,") {
		return 0, Usagef("size %q: not a whole number; use a smaller unit (1536MiB for 1.5 GiB)", s)
	}
	if strings.HasPrefix(digits, "-") {
		return 0, Usagef("size %q: must be above zero", s)
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil && !tooBig(digits) {
		return 0, Usagef("size %q: want a number and a unit, such as 10GiB or 512M", s)
	}
	scale, err2 := parseUnit(s, unit)
	switch {
	case err2 != nil:
		return 0, err2
	case err != nil || n > math.MaxInt64/uint64(scale):
		return 0, Usagef("size %q: too large; there are no volumes above %v, and no sizes of 8EiB or more", s, MaxVolumeSize)
	case n == 0:
		return 0, Usagef("size %q: must be above zero", s)
	}
	return Size(n) * scale, nil
}

// tooBig says whether s is a number that only lacks room in 64 bits.
func tooBig(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func parseUnit(s, unit string) (Size, error) {
	u := strings.ToUpper(unit)
	if u == "" || u == "B" {
		return 1, nil
	}
	for _, k := range units {
		switch u {
		case k.name[:1], strings.ToUpper(k.name):
			return k.size, nil
		case k.name[:1] + "B":
			return 0, Usagef("size %q: %s can mean two things; write %s for powers of 1024", s, unit, k.name)
		}
	}
	return 0, Usagef("size %q: unknown unit %q; use K, M, G, T, P or E", s, unit)
}

// String is the shortest exact form that ParseSize reads.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Human is the size for people, rounded: "1.5 GiB". One that was chosen in the next smaller unit stays in that where
// rounding would make another one of it: "1025 MiB", which is not 1.0 GiB.
func (s Size) Human() string {
	for i, u := range units {
		if s < u.size {
			continue
		}
		if u.size >= GiB && s < 10*u.size && s%units[i+1].size == 0 && s*10%u.size != 0 {
			return strconv.FormatInt(int64(s/units[i+1].size), 10) + " " + units[i+1].name
		}
		v := float64(s) / float64(u.size)
		return strconv.FormatFloat(v, 'f', 1, 64) + " " + u.name
	}
	return strconv.FormatInt(int64(s), 10) + " B"
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// UnmarshalTOML reads a size, or a plain number. The decoder's own way to a number with a fraction would print more of it
// than there is.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		return s.UnmarshalText([]byte(v))
	case float64:
		return s.UnmarshalText([]byte(strconv.FormatFloat(v, 'f', -1, 64)))
	}
	return s.UnmarshalText(fmt.Append(nil, v))
}

// Set and Type make a Size a flag value.
func (s *Size) Set(text string) error { return s.UnmarshalText([]byte(text)) }

// Type names the kind of value in a usage text.
func (s *Size) Type() string { return "SIZE" }
