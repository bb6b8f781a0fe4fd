package blockmap

import (
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// storeError is an error of Pebble that tells of damage.
type storeError struct{ error }

// StoreError gives an error of Pebble a text for people: to one that tells of damage Pebble joins another, which carries
// details for programs and has no text but a placeholder.
func StoreError(err error) error {
	if err == nil || pebble.ExtractDataCorruptionInfo(err) == nil {
		return err
	}
	return storeError{err}
}

func (e storeError) Error() string {
	return strings.ReplaceAll(e.error.Error(), "\n<corruption detail carrier>", "")
}

func (e storeError) Unwrap() error { return e.error }
