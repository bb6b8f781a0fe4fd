package gc

import "fmt"

// Thresholds are the four marks of a device's count of unused segments, as they are configured. Marks that are
// not set take the default of DefaultLimits for the size of the device.
type Thresholds struct {
	// Low: at or below it collection is forced.
	Low Amount `toml:"low,omitempty" json:"low,omitzero"`
	// High: a forced collection ends at or above it.
	High Amount `toml:"high,omitempty" json:"high,omitzero"`
	// AltLow: at or below it collection starts early when the timer matches.
	AltLow Amount `toml:"alt-low,omitempty" json:"alt_low,omitzero"`
	// AltHigh: an early collection ends at or above it.
	AltHigh Amount `toml:"alt-high,omitempty" json:"alt_high,omitzero"`
}

// Limits are the thresholds of one device in segments. 0 < Low < High, Low < AltLow < AltHigh, High < AltHigh.
type Limits struct {
	Low     int `json:"low"`
	High    int `json:"high"`
	AltLow  int `json:"alt_low"`
	AltHigh int `json:"alt_high"`
}

// Shares of the default limits. Unused segments are spare capacity that collection cannot use, and spare
// capacity is what write amplification depends on: at utilisation 0.85 each per cent of a device that is kept
// unused costs about six per cent more writes. The marks are therefore as low as steady early collection
// allows; docs/GC.md has the measurements.
const (
	shareLow  = 0.0075
	shareHigh = 0.0025 // above low
	shareBand = 0.01   // from low to alternative high
)

// tiny devices, with fewer segments, have marks of their own: the others would not leave them any room.
const tiny = 16

// DefaultLimits are the marks of a device of total segments where nothing is configured.
func DefaultLimits(total int) Limits {
	band := max(5, Share(shareBand).Of(total))
	low := max(4, Share(shareLow).Of(total))
	if total < tiny {
		band, low = 3, 2
	}
	return Limits{
		Low:     low,
		High:    low + max(1, Share(shareHigh).Of(total)),
		AltLow:  low + band - max(1, band/5),
		AltHigh: low + band,
	}
}

// Thresholds are marks that are these limits, on a device of any size.
func (l Limits) Thresholds() Thresholds {
	return Thresholds{Low: Count(l.Low), High: Count(l.High), AltLow: Count(l.AltLow), AltHigh: Count(l.AltHigh)}
}

// Or is t with what is not set taken from base.
func (t Thresholds) Or(base Thresholds) Thresholds {
	pick := func(a, b Amount) Amount {
		if a.IsZero() {
			return b
		}
		return a
	}
	return Thresholds{pick(t.Low, base.Low), pick(t.High, base.High), pick(t.AltLow, base.AltLow), pick(t.AltHigh, base.AltHigh)}
}

// Resolve gives the limits of a device of total segments. A mark that is not set keeps its default distance
// from the low mark, so that setting the low mark alone moves all four. The error wraps one of the Err values and
// names the marks.
func (t Thresholds) Resolve(total int) (Limits, error) {
	d := DefaultLimits(total)
	set := func(a Amount, otherwise int) int {
		if a.IsZero() {
			return otherwise
		}
		return a.Of(total)
	}
	l := Limits{Low: set(t.Low, d.Low)}
	l.High = set(t.High, l.Low+d.High-d.Low)
	l.AltHigh = set(t.AltHigh, max(l.Low+d.AltHigh-d.Low, l.High+1))
	if t.AltHigh.IsZero() && !t.AltLow.IsZero() {
		l.AltHigh = max(l.AltHigh, t.AltLow.Of(total)+d.AltHigh-d.AltLow)
	}
	l.AltLow = set(t.AltLow, l.AltHigh-(d.AltHigh-d.AltLow))
	return l, l.validate(total)
}

func (l Limits) validate(total int) error {
	switch {
	case l.Low < 1:
		return fmt.Errorf("low %d: %w", l.Low, ErrLow)
	case l.High <= l.Low:
		return fmt.Errorf("high %d, low %d: %w", l.High, l.Low, ErrHighNotAboveLow)
	case l.AltHigh <= l.AltLow:
		return fmt.Errorf("alternative high %d, alternative low %d: %w", l.AltHigh, l.AltLow, ErrHighNotAboveLow)
	case l.AltLow <= l.Low:
		return fmt.Errorf("alternative low %d, default low %d: %w", l.AltLow, l.Low, ErrAltNotAboveDefault)
	case l.AltHigh <= l.High:
		return fmt.Errorf("alternative high %d, default high %d: %w", l.AltHigh, l.High, ErrAltNotAboveDefault)
	case l.AltHigh >= total:
		return fmt.Errorf("alternative high %d, device of %d segments: %w", l.AltHigh, total, ErrTooHigh)
	}
	return nil
}
