package guestmem

import "sync"

// readSize is how much of a file is read at once, in bytes.
const readSize = 1 << 20

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// eachPage calls visit for every page of a part of the range, with its place in
// the range. page is valid until visit returns, and may be older than what is
// in Data. What cannot be read is looked at in Data.
func (r *Range) eachPage(part Extent, visit func(off uint64, page []byte)) {
	if r.File == nil {
		r.mapped(part, visit)
		return
	}
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for off, end := part.Off, part.Off+part.Len; off < end; {
		b := buf[:min(readSize, end-off)]
		if n, _ := r.File.ReadAt(b, r.Off+int64(off)); n < len(b) {
			r.mapped(Extent{off, uint64(len(b))}, visit)
		} else {
			for i := uint64(0); i < uint64(len(b)); i += PageSize {
				visit(off+i, b[i:i+PageSize])
			}
		}
		off += uint64(len(b))
	}
}

func (r *Range) mapped(part Extent, visit func(off uint64, page []byte)) {
	for off := part.Off; off < part.Off+part.Len; off += PageSize {
		visit(off, r.Data[off:off+PageSize])
	}
}
