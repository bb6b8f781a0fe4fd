package blockmap

import (
	"bytes"

	"lsad/lsa/format"
)

// The methods in this file change the map. They are called under the array's
// commit lock, with the pages pinned, and never wait for I/O.

// touch prepares a page for a change; its shard is locked.
func (m *Map) touch(s *shard, p *page) {
	if p.gen == m.gen {
		return
	}
	if p.gen != 0 && p.gen == m.flushGen && !p.saved {
		s.scratch = m.appendValue(s.scratch[:0], p)
		p.image, p.saved = bytes.Clone(s.scratch), true
	}
	if p.gen == 0 {
		m.changed.add(p.key)
	}
	p.gen = m.gen
	m.unmarked(p)
	s.dirty = append(s.dirty, p)
	m.dirty.Add(p.bytes())
}

// change runs fn on a pinned page, keeping the books of memory. fn marks the entries of the layer's own that it changes.
func (m *Map) change(k Key, fn func(p *page)) {
	s := m.shard(k)
	s.mu.Lock()
	p := s.pages[k]
	m.touch(s, p)
	before := p.bytes()
	fn(p)
	if grown := p.bytes() - before; grown != 0 {
		m.bytes.Add(grown)
		m.dirty.Add(grown)
	}
	s.mu.Unlock()
}

// Write maps count blocks from block on to data that lies from place on;
// crc gives the checksum of the i-th. second is the other copy, or zero.
func (m *Map) Write(layer, block uint64, count int, lsn uint64, place, second format.Place, crc func(i int) uint32) {
	_ = eachPage(block, count, func(pg uint64, off uint16, at, n int) error {
		m.change(Key{layer, pg}, func(p *page) {
			room := m.replace(p, off, n)
			for i := range room {
				e := Entry{LSN: lsn, CRC: crc(at + i), Off: off + uint16(i), Kind: KindData, Own: true}
				e.Place[0] = place.After(at + i)
				if second != 0 {
					e.Place[1] = second.After(at + i)
				}
				room[i] = e
				m.acct.Used(layer, &room[i])
			}
		})
		return nil
	})
}

// Zero maps count blocks within one page as zero but allocated.
func (m *Map) Zero(layer, block uint64, count int, lsn uint64) {
	m.change(Key{layer, block / PageBlocks}, func(p *page) {
		off := uint16(block % PageBlocks)
		room := m.replace(p, off, count)
		for i := range room {
			room[i] = Entry{LSN: lsn, Off: off + uint16(i), Kind: KindZero, Own: true}
			m.acct.Used(layer, &room[i])
		}
	})
}

// replace makes room for entries [off, off+n) and frees the own ones there.
func (m *Map) replace(p *page, off uint16, n int) []Entry {
	p.mark(off, n)
	lo, hi := p.find(off), p.find(off+uint16(n))
	for i := lo; i < hi; i++ {
		if p.entries[i].Own {
			m.acct.Freed(p.key.Layer, &p.entries[i])
		}
	}
	return p.splice(lo, hi, n)
}

// Unmap makes holes of count blocks within one page. Where the layer stands on
// others, holes are kept as entries that hide what those have.
func (m *Map) Unmap(layer, block uint64, count int, lsn uint64) {
	root := m.Layers.Parent(layer) == 0
	m.change(Key{layer, block / PageBlocks}, func(p *page) {
		off := uint16(block % PageBlocks)
		p.mark(off, count)
		lo, hi := p.find(off), p.find(off+uint16(count))
		for i := lo; i < hi; i++ {
			e := &p.entries[i]
			if e.Own {
				m.acct.Freed(layer, e)
			}
			*e = Entry{LSN: lsn, Off: e.Off, Kind: KindHole, Own: true}
		}
		if root {
			p.splice(lo, hi, 0)
		}
	})
}

// Move changes the place of a block if the layer itself still has it at from
// with that LSN, and says whether it did. Descendants that inherit the block
// see the new place too. It does not bring two copies onto one device.
// from zero is the second place of a block that has but one.
func (m *Map) Move(layer, block, lsn uint64, from, to format.Place) bool {
	k, off := Key{layer, block / PageBlocks}, uint16(block%PageBlocks)
	s := m.shard(k)
	s.mu.Lock()
	p := s.pages[k]
	if p == nil || p.loading != nil {
		s.mu.Unlock()
		return false
	}
	e := p.get(off)
	if e == nil || !e.Own || e.LSN != lsn || !e.has(from) || together(e.Other(from), to) {
		s.mu.Unlock()
		return false
	}
	m.views.left(e)
	m.touch(s, p)
	p.mark(off, 1)
	e = p.get(off)
	m.acct.Freed(layer, e)
	e.move(from, to)
	m.acct.Used(layer, e)
	s.mu.Unlock()
	m.eachDescendant(layer, k.Page, func(p *page) {
		if e := p.get(off); e != nil && !e.Own && e.LSN == lsn && e.Kind == KindData {
			e.move(from, to)
		}
	})
	return true
}

// has is Has, and says whether the second place is free if p is zero.
func (e *Entry) has(p format.Place) bool {
	return e.Has(p) || p == 0 && e.Kind == KindData && e.Place[1] == 0
}

// together says whether two places, if both are, lie on one device.
func together(p, q format.Place) bool { return p != 0 && q != 0 && p.Device() == q.Device() }

func (e *Entry) move(from, to format.Place) {
	for i := range e.Place {
		if e.Place[i] == from {
			e.Place[i] = to
		}
	}
}

// eachDescendant calls fn, under the shard's lock, with the cached pages of
// the layers above, and has those that are loading just now load again.
func (m *Map) eachDescendant(layer, pg uint64, fn func(p *page)) {
	for _, d := range m.Layers.Descendants(layer) {
		k := Key{d, pg}
		s := m.shard(k)
		s.mu.Lock()
		if p := s.pages[k]; p != nil {
			if p.loading != nil {
				p.reload = true
			} else if fn != nil {
				fn(p)
			}
		}
		s.mu.Unlock()
	}
}
