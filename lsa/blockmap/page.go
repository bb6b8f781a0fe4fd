package blockmap

import "sync/atomic"

// page is one cached page. Its shard's lock guards everything but ref.
type page struct {
	key     Key
	entries []Entry // sorted by Off, no two alike
	pins    int
	loading chan struct{} // closed when loaded; nil then
	reload  bool          // an ancestor changed while loading
	gen     uint64        // checkpoint generation of the last change; 0 if clean
	saved   bool          // the running checkpoint has this page's contents
	image   []byte        // what the running checkpoint is to store, if saved by a change
	marks   *marks        // what changed in this generation; nil if that is not noted, and all is to be stored
	slot    int           // in the shard's ring
	ref     atomic.Bool   // looked up since the clock's hand went by
}

// What the cache counts, in bytes. Pages grow with what is written, so a quarter is added for what the allocator's
// size classes and the gaps between pages take: the budget is memory of the process.
const (
	entryBytes = 32 + 8
	pageBytes  = 224 + 56 // the struct, its map slot, its ring slot, its word in changed
)

func (p *page) bytes() int64 { return int64(cap(p.entries))*entryBytes + pageBytes }

// find returns the index of the first entry with Off >= off. Offsets are
// distinct and sorted, so the index lies in a window that is narrow for a full
// page: at most off, and at least off less the number of absent offsets.
func (p *page) find(off uint16) int {
	n := len(p.entries)
	lo, hi := int(off)-(PageBlocks-n), int(off)
	lo, hi = max(lo, 0), min(hi, n)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if p.entries[mid].Off < off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// get returns the entry at off, nil if there is none.
func (p *page) get(off uint16) *Entry {
	if i := p.find(off); i < len(p.entries) && p.entries[i].Off == off {
		return &p.entries[i]
	}
	return nil
}

// copyTo fills dst with the entries from off on; absent ones become KindNone.
func (p *page) copyTo(off uint16, dst []Entry) {
	i := p.find(off)
	for j := range dst {
		want := off + uint16(j)
		if i < len(p.entries) && p.entries[i].Off == want {
			dst[j] = p.entries[i]
			i++
		} else {
			dst[j] = Entry{Off: want}
		}
	}
}

// splice makes room for n entries in place of entries[lo:hi] and returns it.
func (p *page) splice(lo, hi, n int) []Entry {
	old := len(p.entries)
	total := old - (hi - lo) + n
	if total > cap(p.entries) {
		grown := make([]Entry, total, min(PageBlocks, total+total/8+3))
		copy(grown, p.entries[:lo])
		copy(grown[lo+n:], p.entries[hi:])
		p.entries = grown
		return p.entries[lo : lo+n]
	}
	p.entries = p.entries[:max(old, total)]
	copy(p.entries[lo+n:], p.entries[hi:old])
	p.entries = p.entries[:total]
	return p.entries[lo : lo+n]
}
