package mirrorfs

import (
	"errors"
	"io"
	"io/fs"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// outcome is what an error of one side means for that side.
type outcome int

const (
	done        outcome = iota
	answer              // the file system answered: there is no such file, say
	unsupported         // the file system cannot do that at all
	full                // there is no room
	failed              // the side failed
)

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return full
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, io.EOF):
		return answer
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS), errors.Is(err, vfs.ErrUnsupported):
		return unsupported
	}
	return failed
}
