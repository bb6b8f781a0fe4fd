package blockmap

// Lookup fills dst with the entries of the blocks from block on, as a reader of
// the layer sees them: KindNone and KindHole read as zeros. It reads pages from
// the store where they are missed.
func (m *Map) Lookup(layer, block uint64, dst []Entry) error {
	return eachPage(block, len(dst), func(pg uint64, off uint16, at, n int) error {
		k := Key{layer, pg}
		if m.tryCopy(k, off, dst[at:at+n]) {
			return nil
		}
		if err := m.Pin(k); err != nil {
			return err
		}
		m.tryCopy(k, off, dst[at:at+n])
		m.Unpin(k)
		return nil
	})
}

// TryLookup is Lookup from memory; it returns false if a page is missing.
func (m *Map) TryLookup(layer, block uint64, dst []Entry) bool {
	for at := 0; at < len(dst); {
		b := block + uint64(at)
		off := uint16(b % PageBlocks)
		n := min(len(dst)-at, PageBlocks-int(off))
		if !m.tryCopy(Key{layer, b / PageBlocks}, off, dst[at:at+n]) {
			return false
		}
		at += n
	}
	return true
}

func (m *Map) tryCopy(k Key, off uint16, dst []Entry) bool {
	s := m.shard(k)
	s.mu.RLock()
	p := s.pages[k]
	if p == nil || p.loading != nil {
		s.mu.RUnlock()
		return false
	}
	p.copyTo(off, dst)
	s.mu.RUnlock()
	if !p.ref.Load() {
		p.ref.Store(true)
	}
	return true
}

// eachPage cuts a run of blocks at the page borders.
func eachPage(block uint64, count int, fn func(pg uint64, off uint16, at, n int) error) error {
	for at := 0; at < count; {
		b := block + uint64(at)
		off := uint16(b % PageBlocks)
		n := min(count-at, PageBlocks-int(off))
		if err := fn(b/PageBlocks, off, at, n); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// OwnPlace says where the layer itself has the block, with its LSN; ok is
// false if it has none with data. It reads the page if need be.
func (m *Map) OwnEntry(layer, block uint64) (e Entry, ok bool, err error) {
	var one [1]Entry
	if err := m.Lookup(layer, block, one[:]); err != nil {
		return e, false, err
	}
	return one[0], one[0].Own && one[0].Kind == KindData, nil
}
