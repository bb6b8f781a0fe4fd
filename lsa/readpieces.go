package lsa

import (
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

// piece is a part of a read whose blocks lie one after the other on a device.
type piece struct {
	at    int // in the buffer
	want  int // bytes of it
	skip  int // bytes of its first block that are not wanted
	first int // of the entries
	n     int // entries
	k     int // which copy is read
}

// readEntries fills p with what entries, which begin at a block of a layer,
// map, less the first skip bytes. Of blocks that lie apart it reads what the
// page cache has, and only then waits for the disk, which has been asked
// for all the rest by then.
func (a *Array) readEntries(p []byte, skip int, at place, entries []blockmap.Entry, s *readScratch, try bool) error {
	waiting := s.waiting[:0]
	for i, done := 0, 0; i < len(entries); {
		q := a.nextPiece(entries, i, done, skip, len(p))
		i, done, skip = i+q.n, done+q.want, 0
		if entries[q.first].Kind != blockmap.KindData {
			clear(p[q.at:][:q.want])
			continue
		}
		err := a.readPiece(p, at, entries, s, &q, try || q.n < len(entries))
		if err == errWouldBlock && !try {
			a.prefetchBlocks(entries[q.first].Place[q.k], q.n)
			waiting = append(waiting, q)
			continue
		}
		if err != nil {
			return err
		}
	}
	for i := range waiting {
		if err := a.readPiece(p, at, entries, s, &waiting[i], false); err != nil {
			return err
		}
	}
	return nil
}

// nextPiece is the one that begins with the i-th entry, and at byte done of a
// buffer of size bytes.
func (a *Array) nextPiece(entries []blockmap.Entry, i, done, skip, size int) piece {
	q := piece{at: done, skip: skip, first: i, n: 1, want: min(size-done, format.BlockSize-skip)}
	switch {
	case entries[i].Kind != blockmap.KindData:
	case q.want < format.BlockSize:
		q.k = a.nearest(&entries[i])
	default:
		q.n, q.k = a.run(entries[i:], (size-done)/format.BlockSize)
		q.want = q.n * format.BlockSize
	}
	return q
}

// readPiece fills its part of p.
func (a *Array) readPiece(p []byte, at place, entries []blockmap.Entry, s *readScratch, q *piece, try bool) error {
	part := p[q.at:][:q.want]
	if q.want == q.n*format.BlockSize {
		return a.readCopies(part, at.after(q.first), entries[q.first:][:q.n], q.k, try)
	}
	err := a.readCopies(s.block[:], at.after(q.first), entries[q.first:][:1], q.k, try)
	if err == nil {
		copy(part, s.block[q.skip:])
	}
	return err
}

// prefetchBlocks asks a device for blocks, one after the other, that will be waited for.
func (a *Array) prefetchBlocks(p format.Place, n int) {
	if d := a.devOf(p); d != nil && d.holds(p, n) {
		d.dev.Prefetch(d.offset(p.Segment(), p.Sector()), int64(n)*format.BlockSize)
	}
}
