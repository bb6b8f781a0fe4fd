package format

import (
	"bytes"
	"reflect"
	"testing"

	"lsad/lsa/format/hexfile"
)

const testSecret = 0x1122334455667788

var headerFields = []hexfile.Field{
	{Size: 4, Name: `magic "LSAR"`}, {Size: 2, Name: "version"}, {Size: 2, Name: "flags: 1 again, 2 void, 4 two"},
	{Size: 2, Name: "header length, sectors"}, {Size: 2, Name: "entries"}, {Size: 4, Name: "data blocks"},
	{Size: 8, Name: "generation of the segment"}, {Size: 2, Name: "device slot"}, {Size: 2, Name: "zero"},
	{Size: 4, Name: "segment"}, {Size: 4, Name: "first sector, within the segment"}, {Size: 4, Name: "LSNs taken"},
	{Size: 8, Name: "epoch"}, {Size: 8, Name: "first LSN"}, {Size: 8, Name: "durable LSN when written"},
	{Size: 4, Name: "length of the entries, bytes"}, {Size: 8, Name: "zero"}, {Size: 4, Name: "checksum of the header and the secret"},
}

var entryFields = map[EntryKind][]hexfile.Field{
	EntryWrite: {{Size: 1, Name: "entry: write"}, {Size: 3, Name: "zero"}, {Size: 4, Name: "blocks"}, {Size: 8, Name: "layer"},
		{Size: 8, Name: "first block"}, {Size: 4, Name: "checksum of the 1st block"}, {Size: 4, Name: "checksum of the 2nd block"}},
	EntryTrim: {{Size: 1, Name: "entry: trim"}, {Size: 7, Name: "zero"}, {Size: 8, Name: "layer"}, {Size: 8, Name: "first block"}, {Size: 8, Name: "blocks"}},
	EntryZero: {{Size: 1, Name: "entry: zero"}, {Size: 7, Name: "zero"}, {Size: 8, Name: "layer"}, {Size: 8, Name: "first block"}, {Size: 8, Name: "blocks"}},
	EntryMove: {{Size: 1, Name: "entry: move"}, {Size: 3, Name: "zero"}, {Size: 4, Name: "checksum"}, {Size: 8, Name: "layer"},
		{Size: 8, Name: "block"}, {Size: 8, Name: "LSN that wrote it"}, {Size: 8, Name: "place it is moved from"}},
	EntryAdmin: {{Size: 1, Name: "entry: administrative"}, {Size: 3, Name: "zero"}, {Size: 4, Name: "length, bytes"}, {Size: 17, Name: "JSON"}},
}

// goldenRecord is one of each kind of record.
type goldenRecord struct {
	name, comment string
	header        RecordHeader
	entries       []Entry
}

func goldenRecords() []goldenRecord {
	crcs := []byte{0x0d, 0xf0, 0xad, 0xba, 0xef, 0xbe, 0xad, 0xde}
	h := RecordHeader{Device: 2, Segment: 7, Sector: 33, Generation: 5, Epoch: 3, FirstLSN: 1000, DurableLSN: 990}
	with := func(change func(h *RecordHeader)) RecordHeader { c := h; change(&c); return c }
	return []goldenRecord{
		{"write", "Two blocks written to layer 12.", with(func(h *RecordHeader) { h.Blocks, h.Entries, h.LSNs = 2, 1, 1 }),
			[]Entry{{Kind: EntryWrite, Layer: 12, Block: 0x123456, Count: 2, CRCs: crcs}}},
		{"trim", "A megabyte trimmed.", with(func(h *RecordHeader) { h.Entries, h.LSNs = 1, 1 }),
			[]Entry{{Kind: EntryTrim, Layer: 12, Block: 256, Count: 256}}},
		{"zero", "A block made zero, but allocated.", with(func(h *RecordHeader) { h.Entries, h.LSNs = 1, 1 }),
			[]Entry{{Kind: EntryZero, Layer: 12, Block: 1, Count: 1}}},
		{"move", "A block moved by a collection, and appended a second time because the first append failed.",
			with(func(h *RecordHeader) { h.Flags, h.Blocks, h.Entries, h.LSNs = FlagAgain, 1, 1, 1 }),
			[]Entry{{Kind: EntryMove, Layer: 12, Block: 9, Count: 1, OldLSN: 400, From: MakePlace(1, 6, 17), CRCs: crcs[:4]}}},
		{"admin", "A change of the catalogue.", with(func(h *RecordHeader) { h.Entries, h.LSNs = 1, 1 }),
			[]Entry{{Kind: EntryAdmin, Payload: []byte(`{"op":"snapshot"}`)}}},
		{"two", "A block written, of which another device has a copy.", with(func(h *RecordHeader) { h.Flags, h.Blocks, h.Entries, h.LSNs = FlagTwo, 1, 1, 1 }),
			[]Entry{{Kind: EntryWrite, Layer: 12, Block: 0x123456, Count: 1, CRCs: crcs[:4]}}},
		{"void", "Five LSNs that were never acknowledged.", with(func(h *RecordHeader) { h.Flags, h.LSNs = FlagVoid, 5 }), nil},
		{"batch", "A batch of three changes with three LSNs.", with(func(h *RecordHeader) { h.Blocks, h.Entries, h.LSNs = 3, 3, 3 }),
			[]Entry{{Kind: EntryWrite, Layer: 12, Block: 5, Count: 2, CRCs: crcs}, {Kind: EntryTrim, Layer: 12, Block: 100, Count: 7},
				{Kind: EntryMove, Layer: 3, Block: 9, Count: 1, OldLSN: 400, From: MakePlace(1, 6, 17), CRCs: crcs[4:]}}},
	}
}

// encode makes the header of a record as the array does.
func encode(h RecordHeader, entries []Entry) []byte {
	buf := make([]byte, HeaderFixed)
	for i := range entries {
		buf = appendEntry(buf, &entries[i])
	}
	return PutRecordHeader(buf, &h, testSecret)
}

func appendEntry(buf []byte, e *Entry) []byte {
	switch e.Kind {
	case EntryWrite:
		var crcs []uint32
		for i := range e.DataBlocks() {
			crcs = append(crcs, e.CRC(i))
		}
		return AppendWriteEntry(buf, e.Layer, e.Block, crcs)
	case EntryMove:
		return AppendMoveEntry(buf, e.Layer, e.Block, e.OldLSN, e.From, e.CRC(0))
	case EntryAdmin:
		return AppendAdminEntry(buf, e.Payload)
	}
	return AppendRangeEntry(buf, e.Kind, e.Layer, e.Block, e.Count)
}

// decode reads a header and its entries, as recovery does.
func decode(header []byte) (h RecordHeader, entries []Entry, ok bool, err error) {
	if h, ok = PeekRecordHeader(header[:min(len(header), SectorSize)]); !ok {
		return h, nil, false, nil
	}
	if size := int(h.Sectors) * SectorSize; size > len(header) || !CheckRecordHeader(header[:size], &h, testSecret) {
		return h, nil, false, nil
	}
	err = DecodeEntries(header, &h, func(e *Entry) error {
		c := *e
		c.CRCs, c.Payload = bytes.Clone(e.CRCs), bytes.Clone(e.Payload)
		entries = append(entries, c)
		return nil
	})
	return h, entries, true, err
}

// TestGoldenRecords: each kind of record is the bytes that docs/FORMAT.md says.
func TestGoldenRecords(t *testing.T) {
	for _, g := range goldenRecords() {
		t.Run(g.name, func(t *testing.T) {
			fields := append([]hexfile.Field(nil), headerFields...)
			for _, e := range g.entries {
				fields = append(fields, entryFields[e.Kind]...)
			}
			p := hexfile.Golden(t, "testdata/record-"+g.name+".hex", g.comment+" The array's secret is 0x1122334455667788.",
				encode(g.header, g.entries), append(fields, hexfile.Field{Name: "zeros up to a whole sector"}))
			h, entries, ok, err := decode(p)
			if !ok || err != nil {
				t.Fatalf("cannot be read: %v, %v", ok, err)
			}
			want := g.header
			want.Sectors, want.entryBytes = 1, h.entryBytes
			if h != want || !reflect.DeepEqual(entries, g.entries) {
				t.Fatalf("read back as\n%+v %+v\nwant\n%+v %+v", h, entries, want, g.entries)
			}
			if h.LastLSN() != 999+uint64(g.header.LSNs) || h.TotalSectors() != 1+8*g.header.Blocks {
				t.Fatalf("last LSN %d, %d sectors", h.LastLSN(), h.TotalSectors())
			}
		})
	}
}

var superFields = []hexfile.Field{
	{Size: 8, Name: `magic "lsad\0arr"`}, {Size: 4, Name: "version"}, {Size: 4, Name: "devices"}, {Size: 8, Name: "compatible features"},
	{Size: 8, Name: "incompatible features"}, {Size: 16, Name: "array"}, {Size: 16, Name: "device"}, {Size: 8, Name: "secret"},
	{Size: 4, Name: "segment size, bytes"}, {Size: 2, Name: "slot of this device"}, {Size: 1, Name: "served"}, {Size: 1, Name: "clean"},
	{Size: 8, Name: "sequence"}, {Size: 8, Name: "epoch"}, {Size: 8, Name: "last LSN before the epoch"}, {Size: 8, Name: "incarnation"},
	{Size: 16, Name: "boot"}, {Size: 8, Name: "number of a checkpoint"}, {Size: 120, Name: "zeros"},
	{Size: 16, Name: "device in slot 0"}, {Size: 4, Name: "its segments"}, {Size: 1, Name: "its state"}, {Size: 11, Name: "zero"},
	{Size: 16, Name: "device in slot 1"}, {Size: 4, Name: "its segments"}, {Size: 1, Name: "its state"}, {Size: 11, Name: "zero"},
	{Size: 3772, Name: "zeros"}, {Size: 4, Name: "checksum of all before"},
}

func goldenSuperblock() *Superblock {
	id := func(first byte) (u UUID) {
		for i := range u {
			u[i] = first + byte(i)
		}
		return u
	}
	return &Superblock{
		Compat: 1 << 63, Array: id(0x10), Secret: testSecret, Device: id(0x40), Slot: 1, SegmentSize: DefaultSegmentSize,
		Sequence: 17, Epoch: 3, CutLSN: 999, Served: true, Boot: id(0x60), Incarnation: 0xfeed, Checkpoint: 0xc0de,
		Devices: []DeviceRow{{ID: id(0x30), Segments: 127, State: DeviceReadOnly}, {ID: id(0x40), Segments: 255}},
	}
}

func TestGoldenSuperblock(t *testing.T) {
	want := goldenSuperblock()
	p := hexfile.Golden(t, "testdata/superblock.hex", "The second of two devices; the first is out of service.", EncodeSuperblock(want), superFields)
	got, err := DecodeSuperblock(p)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read back as\n%+v\nwant\n%+v\n%v", got, want, err)
	}
}
