// Package config owns the settings of lsad serve: what they are called, what
// they default to, how flags and a TOML file set them, and which values make
// no sense. A setting has one name, which is both its flag and its key in
// the file; the flag wins.
//
// The package touches no file but the configuration file, and opens nothing: it knows neither
// the array nor the servers. All of it is used before the first goroutine starts, so there are
// no locks.
package config

import (
	"errors"
	"fmt"
)

// ErrUsage is what every error about a setting wraps: the caller asked for
// something that cannot be, and exit code 2 says so.
var ErrUsage = errors.New("usage")

// usageError is an error whose text stands for itself and that Is ErrUsage.
type usageError struct{ text string }

func (e *usageError) Error() string        { return e.text }
func (e *usageError) Is(target error) bool { return target == ErrUsage }

// Usagef makes an error that Is ErrUsage.
func Usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}
