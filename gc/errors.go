package gc

import "errors"

// Reasons for which settings are refused. Errors returned by this package wrap one of them and name the
// setting, the device and the numbers.
var (
	// ErrAmount: neither a number of segments nor a share such as "1.5%".
	ErrAmount = errors.New("want a number of segments such as 12 or a share such as 1.5%")
	// ErrLow: the default low threshold leaves nothing to relocate into.
	ErrLow = errors.New("the default low threshold must be at least one segment")
	// ErrHighNotAboveLow: a collection would end before it began.
	ErrHighNotAboveLow = errors.New("a high threshold must be above its low threshold")
	// ErrAltNotAboveDefault: an early collection could never come before a forced one.
	ErrAltNotAboveDefault = errors.New("an alternative threshold must be above the default one")
	// ErrTooHigh: the device does not have that many segments.
	ErrTooHigh = errors.New("the thresholds ask for more segments than the device has")
	// ErrPeriod: no time, or one too short or too long for a timer.
	ErrPeriod = errors.New("want a time such as 30s, at least 1ms, or auto")
	// ErrPhase: a phase is a share of the period.
	ErrPhase = errors.New("a phase must be at least 0 and below 1")
	// ErrUnknown: no mode, policy, placement or device of that name.
	ErrUnknown = errors.New("unknown name")
	// ErrExists: a device of that name was added before.
	ErrExists = errors.New("the device is there already")
)
