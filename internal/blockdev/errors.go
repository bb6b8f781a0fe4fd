package blockdev

import "fmt"

// opError says which device failed at what, and wraps the cause.
func opError(name, op string, off, n int64, err error) error {
	return fmt.Errorf("%s: %s of %d bytes at %d: %w", name, op, n, off, err)
}

// checkRange is the one place where offsets and lengths are compared with the
// size of a device; it is written so that nothing can overflow.
func checkRange(name, op string, off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%s: %s of %d bytes at %d, device has %d: %w", name, op, n, off, size, ErrOutOfRange)
	}
	return nil
}

// vecLen is the number of bytes in the buffers.
func vecLen(bufs [][]byte) int64 {
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}
