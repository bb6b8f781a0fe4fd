package gc

import "time"

// Reason is why a device collects.
type Reason uint8

const (
	// None: it does not.
	None Reason = iota
	// Early: the timer matched and the count was at or below the alternative low threshold.
	Early
	// Forced: the count was at or below the default low threshold.
	Forced
	// Manual: an operator asked.
	Manual
)

// String is the name used in status, metrics and logs.
func (r Reason) String() string {
	return [...]string{"none", "early", "forced", "manual"}[r]
}

// MarshalText implements encoding.TextMarshaler.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Decide says whether a device that is not collecting starts: a pure function of its own count of unused
// segments, the time since its timer was armed, its time threshold and its limits. A time threshold of zero
// means that the device has no timer. The safety net comes first: at or below the default low threshold the
// collection is a forced one, whatever the timer says.
func Decide(unused int, sinceArmed, timeThreshold time.Duration, l Limits) Reason {
	switch {
	case unused <= l.Low:
		return Forced
	case timeThreshold > 0 && sinceArmed >= timeThreshold && unused <= l.AltLow:
		return Early
	}
	return None
}

// Ended says whether a collection that began for the given reason is done: an early one (or a manual one) at
// the alternative high threshold, a forced one at the default high threshold.
func Ended(why Reason, unused int, l Limits) bool {
	switch why {
	case Forced:
		return unused >= l.High
	case Early, Manual:
		return unused >= l.AltHigh
	}
	return true
}
