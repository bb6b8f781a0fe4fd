//go:build linux

package blockdev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrMisplaced is what the error of Look is: reads and writes may go on well, but what is on the device will not be
// found at the next start.
var ErrMisplaced = errors.New("the device's file is not what it was")

// Look sees whether the file is still as long as when it was opened, and whether its path still leads to it. It does no
// I/O to the device, and of block devices it sees nothing.
func (f *File) Look() error {
	f.open.RLock()
	defer f.open.RUnlock()
	if f.closed || f.block {
		return nil
	}
	var st, at unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("look at %s: %w", f.name, err)
	}
	what := ""
	err := unix.Stat(f.name, &at)
	switch {
	case st.Nlink == 0:
		what = "it was deleted; what it holds is lost when the server ends: move the data away first (lsad device replace)"
	case st.Size < f.size:
		what = fmt.Sprintf("it was cut from %d bytes to %d; what lay behind that is lost", f.size, st.Size)
	case errors.Is(err, unix.ENOENT):
		what = "it was moved; the next start looks for it here"
	case err == nil && (at.Dev != st.Dev || at.Ino != st.Ino):
		what = "it was moved, and another file is in its place, where the next start looks for it"
	default:
		return nil
	}
	return fmt.Errorf("device %s: %w: %s", f.name, ErrMisplaced, what)
}
