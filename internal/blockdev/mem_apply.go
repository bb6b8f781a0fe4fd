package blockdev

import "bytes"

// apply carries the flight out on t. With remember it returns the way back.
func (f *flight) apply(t *pageTable, remember bool) []change {
	var changes []change
	if remember {
		changes = make([]change, 0, f.n/pageSize+2)
	}
	src := vecCursor{bufs: f.bufs}
	eachPage(f.off, f.n, func(page int64, from, to int) {
		var c change
		var done bool
		switch f.kind {
		case OpWrite:
			c, done = t.write(page, from, to, &src, remember), true
		case OpDiscard:
			c, done = t.discard(page, from, to, remember)
		case OpAllocate:
			c, done = t.reserve(page)
		}
		if done && remember {
			changes = append(changes, c)
		}
	})
	return changes
}

// write takes the bytes [from, to) of a page from src. With remember the page
// before stays as it is where it is replaced, and its sectors are copied
// where it is not.
func (t *pageTable) write(i int64, from, to int, src *vecCursor, remember bool) change {
	c := change{page: i, sectors: sectorsOf(from, to)}
	whole := to-from == pageSize
	if t.owned(i) && !(whole && remember) {
		p := t.get(i)
		if remember {
			c.first = c.sectors.first()
			at := c.first * SectorSize
			c.old = bytes.Clone(p[at : at+c.sectors.count()*SectorSize])
		}
		src.fill(p[from:to])
		return c
	}
	c.replaced, c.was = true, t.get(i)
	fresh := new(pageData)
	if c.was != nil && !whole {
		*fresh = *c.was
	}
	src.fill(fresh[from:to])
	t.set(i, fresh, true)
	return c
}

// discard zeroes the bytes [from, to) of a page; a whole page's space goes back.
func (t *pageTable) discard(i int64, from, to int, remember bool) (change, bool) {
	was := t.get(i)
	if was == nil {
		return change{}, false
	}
	if to-from < pageSize {
		return t.write(i, from, to, &vecCursor{}, remember), true
	}
	t.set(i, nil, false)
	return change{page: i, sectors: allSectors, was: was, replaced: true}, true
}

// reserve takes the space of a page that has none.
func (t *pageTable) reserve(i int64) (change, bool) {
	if t.get(i) != nil {
		return change{}, false
	}
	t.set(i, &reservedPage, false)
	return change{page: i, sectors: allSectors, replaced: true}, true
}

// vecCursor walks over buffers without consuming the caller's slice.
type vecCursor struct {
	bufs [][]byte // none: zeros
	buf  int
	at   int
}

// fill copies the next len(dst) bytes, or zeros if there are no buffers.
func (v *vecCursor) fill(dst []byte) {
	if len(v.bufs) == 0 {
		clear(dst)
		return
	}
	for len(dst) > 0 {
		n := copy(dst, v.bufs[v.buf][v.at:])
		dst, v.at = dst[n:], v.at+n
		if v.at == len(v.bufs[v.buf]) {
			v.buf, v.at = v.buf+1, 0
		}
	}
}
