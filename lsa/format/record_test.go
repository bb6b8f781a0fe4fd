package format

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func randomEntries(rng *rand.Rand) (entries []Entry, blocks int) {
	for range rng.IntN(40) {
		e := Entry{Kind: EntryKind(1 + rng.IntN(5)), Layer: rng.Uint64(), Block: rng.Uint64N(MaxVolumeBlocks)}
		e.Count = 1 + rng.Uint64N(min(50, MaxVolumeBlocks-e.Block))
		switch e.Kind {
		case EntryMove:
			e.Count, e.OldLSN, e.From = 1, rng.Uint64(), Place(rng.Uint64())
		case EntryTrim, EntryZero:
			e.Count = 1 + rng.Uint64N(MaxVolumeBlocks-e.Block)
		case EntryAdmin:
			e = Entry{Kind: EntryAdmin, Payload: make([]byte, rng.IntN(200))}
		}
		if n := 4 * e.DataBlocks(); n > 0 {
			e.CRCs = make([]byte, n)
			for i := range e.CRCs {
				e.CRCs[i] = byte(rng.Uint32())
			}
		}
		blocks += e.DataBlocks()
		entries = append(entries, e)
	}
	return entries, blocks
}

func randomHeader(rng *rand.Rand, entries, blocks int) RecordHeader {
	h := RecordHeader{
		Flags: uint16(rng.IntN(2))*FlagAgain | uint16(rng.IntN(2))*FlagTwo, Entries: uint16(entries), Blocks: uint32(blocks), Device: uint16(rng.Uint32()), Segment: rng.Uint32(),
		Sector: rng.Uint32(), Generation: rng.Uint64(), Epoch: rng.Uint64(), FirstLSN: 1 + rng.Uint64N(1<<60), LSNs: uint32(entries), DurableLSN: rng.Uint64(),
	}
	if entries == 0 {
		h.Flags, h.LSNs = FlagVoid, 1+rng.Uint32N(1000)
	}
	return h
}

// TestRecordRoundTrip: what was encoded is decoded, and a header does not pass
// with another secret or with any one bit changed.
func TestRecordRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		entries, blocks := randomEntries(rng)
		want := randomHeader(rng, len(entries), blocks)
		p := encode(want, entries)
		h, got, ok, err := decode(p)
		want.Sectors, want.entryBytes = uint16(len(p)/SectorSize), h.entryBytes
		if !ok || err != nil || h != want {
			t.Fatalf("%+v became %+v, %v, %v", want, h, ok, err)
		}
		for i := range got {
			if len(got[i].Payload) == 0 {
				got[i].Payload, entries[i].Payload = nil, nil
			}
		}
		if !reflect.DeepEqual(got, entries) {
			t.Fatalf("%+v became %+v", entries, got)
		}
		if CheckRecordHeader(p, &h, testSecret+1) {
			t.Fatal("a header passed with another secret")
		}
		p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
		if _, _, ok, _ := decode(p); ok {
			t.Fatal("a header passed with a bit flipped")
		}
	}
}

// TestImplausibleHeaders: a fixed part that cannot be is not followed, even if
// its checksum were right.
func TestImplausibleHeaders(t *testing.T) {
	good := RecordHeader{Entries: 1, LSNs: 1, FirstLSN: 1}
	trim := []Entry{{Kind: EntryTrim, Count: 1}}
	tests := []struct {
		name   string
		change func(h *RecordHeader, p []byte)
	}{
		{"magic", func(h *RecordHeader, p []byte) { p[0]++ }},
		{"version", func(h *RecordHeader, p []byte) { p[4]++ }},
		{"unknown flag", func(h *RecordHeader, p []byte) { h.Flags = 8 }},
		{"spare bytes", func(h *RecordHeader, p []byte) { p[len(p)-1]++ }},
		{"too many blocks", func(h *RecordHeader, p []byte) { h.Blocks = MaxBlocks + 1 }},
		{"too many entries", func(h *RecordHeader, p []byte) { h.Entries, h.LSNs = MaxEntries+1, MaxEntries+1 }},
		{"no LSN", func(h *RecordHeader, p []byte) { h.LSNs = 0 }},
		{"LSN 0", func(h *RecordHeader, p []byte) { h.FirstLSN = 0 }},
		{"LSNs beyond all", func(h *RecordHeader, p []byte) { h.FirstLSN = 1<<64 - 1 }},
		{"LSNs and entries differ", func(h *RecordHeader, p []byte) { h.LSNs = 2 }},
		{"void with entries", func(h *RecordHeader, p []byte) { h.Flags = FlagVoid }},
	}
	if _, ok := PeekRecordHeader(encode(good, trim)); !ok {
		t.Fatal("the header that the others are made from is not plausible itself")
	}
	for _, tt := range tests {
		h := good
		tt.change(&h, make([]byte, 76))
		p := encode(h, trim)
		tt.change(&h, p[:76])
		if _, ok := PeekRecordHeader(p); ok {
			t.Errorf("%s: taken for a record", tt.name)
		}
	}
	p := encode(good, trim)
	for _, off := range []int{8, 9, 66, 67} { // lengths of the header and of the entries
		c := append([]byte(nil), p...)
		c[off] += 0x81
		if _, ok := PeekRecordHeader(c); ok {
			t.Errorf("a header whose lengths do not fit was taken for one (byte %d)", off)
		}
	}
	if _, ok := PeekRecordHeader(p[:HeaderFixed-1]); ok {
		t.Error("a header cut short was taken for one")
	}
}

func TestBadEntries(t *testing.T) {
	crcs := make([]uint32, 2)
	whole := AppendWriteEntry(nil, 1, 2, crcs)
	tests := []struct {
		name, want string
		blocks     uint32
		entries    []byte
	}{
		{"unknown kind", "unknown kind 9", 0, []byte{9, 0, 0, 0, 0, 0, 0, 0}},
		{"cut short", "cut short at 3", 0, []byte{1, 0, 0}},
		{"write cut short", "write entry cut short", 2, whole[:len(whole)-1]},
		{"write of nothing", "write of 0 blocks", 0, AppendWriteEntry(nil, 1, 2, nil)},
		{"write of too much", "write of", 0, append([]byte{1, 0, 0, 0, 1, 0x10, 0, 0}, make([]byte, 16)...)},
		{"more blocks than data", "more than the record's 1", 1, whole},
		{"fewer blocks than data", "1 blocks over", 3, whole},
		{"bytes left", "leave 1 bytes", 2, append(append([]byte(nil), whole...), 0)},
		{"trim of nothing", "no blocks", 0, AppendRangeEntry(nil, EntryTrim, 1, 2, 0)},
		{"trim beyond", "beyond any volume", 0, AppendRangeEntry(nil, EntryTrim, 1, MaxVolumeBlocks-1, 2)},
		{"trim far beyond", "beyond any volume", 0, AppendRangeEntry(nil, EntryTrim, 1, 1<<63, 1<<63)},
		{"trim cut short", "range entry cut short", 0, AppendRangeEntry(nil, EntryTrim, 1, 2, 3)[:31]},
		{"move cut short", "move entry cut short", 1, AppendMoveEntry(nil, 1, 2, 3, 4, 5)[:39]},
		{"spare bytes", "spare bytes", 2, append([]byte{1, 1}, whole[2:]...)},
		{"too long a payload", "administrative entry of", 0, []byte{5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}},
		{"payload cut short", "administrative entry of 9", 0, []byte{5, 0, 0, 0, 9, 0, 0, 0, '{'}},
	}
	for _, tt := range tests {
		h := RecordHeader{Entries: 1, Blocks: tt.blocks, LSNs: 1, FirstLSN: 1}
		p := PutRecordHeader(append(make([]byte, HeaderFixed), tt.entries...), &h, testSecret)
		_, _, ok, err := decode(p)
		if !ok || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", tt.name, ok, err)
		}
	}
}

// TestDecodingAllocatesNothing, whatever a header says of its size.
func TestDecodingAllocatesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	entries, blocks := randomEntries(rng)
	p := encode(randomHeader(rng, len(entries), blocks), entries)
	h, _ := PeekRecordHeader(p)
	n := 0
	visit := func(e *Entry) error { n += e.DataBlocks(); return nil }
	allocs := testing.AllocsPerRun(100, func() {
		if _, ok := PeekRecordHeader(p); !ok || !CheckRecordHeader(p, &h, testSecret) || DecodeEntries(p, &h, visit) != nil {
			t.Fatal("not decoded")
		}
	})
	if allocs > 1 { // the entry that visit is given
		t.Errorf("%v allocations", allocs)
	}
}

func TestPlace(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		dev, seg, sector := uint8(rng.IntN(MaxDevices)), rng.Uint32(), rng.Uint32N(MaxSegmentSize/SectorSize-80)
		p := MakePlace(dev, seg, sector).After(10)
		if p.Device() != dev || p.Segment() != seg || p.Sector() != sector+80 {
			t.Fatalf("%d, %d, %d became %v", dev, seg, sector, p)
		}
	}
}

// FuzzRecord: no header makes a reader panic or read out of bounds, and what
// is decoded without an error is exactly what it is encoded from.
func FuzzRecord(f *testing.F) {
	for _, g := range goldenRecords() {
		f.Add(encode(g.header, g.entries))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if h, ok := PeekRecordHeader(p); ok && int(h.Sectors)*SectorSize <= len(p) {
			// As if the writer had meant it: the checksum must not be what
			// keeps a reader safe.
			p = append([]byte(nil), p[:int(h.Sectors)*SectorSize]...)
			sum := headerChecksum(p, testSecret)
			p[76], p[77], p[78], p[79] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		h, entries, ok, err := decode(p)
		if !ok || err != nil {
			return
		}
		again := encode(h, entries)
		end := HeaderFixed + int(h.entryBytes)
		if string(again[HeaderFixed:end]) != string(p[HeaderFixed:end]) {
			t.Fatalf("entries %x read as %+v, which are %x", p[HeaderFixed:end], entries, again[HeaderFixed:end])
		}
	})
}
