package lsa

import (
	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// windowBytes are read at a time: enough to be sequential, and more than any
// header.
const windowBytes = 1 << 20

// window reads a segment from front to back in large pieces.
type window struct {
	dev      blockdev.Device
	base     int64 // of the segment on the device
	size     int64 // of the segment
	buf      []byte
	from, to int64 // what buf has, in bytes from base
}

// at returns n bytes, at most windowBytes, that begin at a sector. They are
// valid until the next call.
func (w *window) at(sector uint32, n int) ([]byte, error) {
	off := int64(sector) * format.SectorSize
	end := off + int64(n)
	if off < w.from || end > w.to {
		w.from, w.to = off, min(off+int64(len(w.buf)), w.size)
		if err := w.dev.ReadAt(w.buf[:w.to-w.from], w.base+off); err != nil {
			// A bad spot further on must not hide what lies before it.
			w.to = end
			if err := w.dev.ReadAt(w.buf[:n], w.base+off); err != nil {
				w.to = w.from
				return nil, err
			}
		}
	}
	return w.buf[off-w.from : end-w.from], nil
}
