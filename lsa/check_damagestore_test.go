package lsa

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/blockmap"
	"lsad/lsa/format"
)

func (s *sound) findBytes(want []byte) (*blockdev.Mem, int64) {
	for _, m := range s.mems {
		all := make([]byte, m.Size())
		if err := m.ReadAt(all, 0); err != nil {
			s.t.Fatal(err)
		}
		if i := bytes.Index(all, want); i >= 0 {
			return m, int64(i)
		}
	}
	s.t.Fatal("not on any device")
	return nil, 0
}

// editStore changes rows of a metadata store, behind its own checksums.
func (s *sound) editStore(prefix byte, change func(key, value []byte) []byte) {
	s.t.Helper()
	o := Options{}
	o.fill()
	db, err := openMetastore(s.fs, "meta", false, false, o.Logger, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	rows := map[string][]byte{}
	err = eachRow(db, prefix, func(key, value []byte) error {
		rows[string(key)] = change(bytes.Clone(key), bytes.Clone(value))
		return nil
	})
	for k, v := range rows {
		if v == nil {
			err = errors.Join(err, db.Delete([]byte(k), pebble.NoSync))
		} else {
			err = errors.Join(err, db.Set([]byte(k), v, pebble.NoSync))
		}
	}
	if err := errors.Join(err, db.Flush(), db.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// TestDamagedMapPage: each bit of a page of the map counts.
func TestDamagedMapPage(t *testing.T) {
	oneByOne(t)
	s := newSound(t)
	rng := rand.New(rand.NewPCG(4, 4))
	var size int
	s.copy(t).editStore('m', func(key, value []byte) []byte { size = max(size, len(value)); return value })
	for range times(30) {
		at, bit := rng.IntN(size), byte(1)<<rng.IntN(8)
		d := s.copy(t)
		hit := false
		d.editStore('m', func(key, value []byte) []byte {
			if len(value) == size {
				value[at] ^= bit
				hit = true
			}
			return value
		})
		if report := d.check(); !hit || len(report.Problems) == 0 {
			t.Fatalf("bit %#x of byte %d of a map page flipped: nothing found", bit, at)
		}
	}
}

func TestDamagedRows(t *testing.T) {
	oneByOne(t)
	s := newSound(t)
	page := func(change func(e []blockmap.Entry)) func(key, value []byte) []byte {
		return func(key, value []byte) []byte {
			entries, err := blockmap.DecodePage(nil, value)
			if err != nil {
				t.Fatal(err)
			}
			change(entries)
			return blockmap.EncodePage(nil, entries)
		}
	}
	row := func(change func(r *segmentRow)) func(key, value []byte) []byte {
		return func(key, value []byte) []byte {
			r, err := decodeSegmentRow(key, value)
			if err != nil {
				t.Fatal(err)
			}
			if r.live > 0 {
				change(&r)
			}
			return r.encode()
		}
	}
	replace := func(old, new string) func(key, value []byte) []byte {
		return func(key, value []byte) []byte {
			return bytes.Replace(value, []byte(old), []byte(new), 1)
		}
	}
	gone := func(key, value []byte) []byte { return nil }
	const fails = -1
	tests := []struct {
		name   string
		prefix byte
		change func(key, value []byte) []byte
		kind   string
		words  string
		opens  int // -1: Open fails
	}{
		{"device that is not there", 'm', page(func(e []blockmap.Entry) { e[3].Place[0] = format.MakePlace(9, 1, 1) }), "map", "no such device", 0},
		{"segment that is not there", 'm', page(func(e []blockmap.Entry) { e[3].Place[0] = format.MakePlace(0, 999, 1) }), "map", "beyond the end", 0},
		{"header of a segment", 'm', page(func(e []blockmap.Entry) { e[3].Place[0] = format.MakePlace(0, 1, 0) }), "map", "beyond the end", 0},
		{"unused segment", 'm', page(func(e []blockmap.Entry) { e[3].Place[0] = format.MakePlace(0, 23, 16) }), "map", "not in use", 0},
		{"end of a segment", 'm', page(func(e []blockmap.Entry) { e[3].Place[0] = e[3].Place[0]&^0xffffff | 504 }), "map", "ends at sector", 0},
		{"two at one place", 'm', page(func(e []blockmap.Entry) { e[3].Place[0], e[3].CRC = e[4].Place[0]+1, e[4].CRC }), "map", "is also that of", 0},
		{"later than the log", 'm', page(func(e []blockmap.Entry) { e[3].LSN = 1 << 40 }), "map", "the log has 1 to", 0},
		{"entry gone", 'm', page(func(e []blockmap.Entry) {
			e[3] = blockmap.Entry{LSN: 9, Off: e[3].Off, Kind: blockmap.KindHole, Own: true}
		}), "layer", "the books say", 0},
		{"page gone", 'm', gone, "segment", "the books say", 0},
		{"segment free", 's', row(func(r *segmentRow) { r.state = segFree }), "map", "not in use", 0},
		{"segment ready", 's', row(func(r *segmentRow) { r.state = segReady }), "map", "not in use", 0},
		{"segment generation", 's', row(func(r *segmentRow) { r.generation++ }), "record", "no intact record", 0},
		{"segment live", 's', row(func(r *segmentRow) { r.live++ }), "segment", "live blocks", 0},
		{"segment used", 's', row(func(r *segmentRow) { r.used = 16 }), "map", "ends at sector 16", 0},
		{"segment too long", 's', row(func(r *segmentRow) { r.used = 1 << 30 }), "array", "segment", fails},
		{"segment class", 's', func(key, value []byte) []byte { value[2] = MaxClasses; return value }, "array", "segment row", fails},
		{"segment cut short", 's', func(key, value []byte) []byte { return value[:31] }, "array", "segment row", fails},
		{"layer blocks", 'l', replace(`"blocks":`, `"blocks":7`), "layer", "the books say", 0},
		{"layer parent", 'l', replace(`"parent":`, `"parent":7`), "array", "cannot stand on", fails},
		{"layer gone", 'l', gone, "array", "is not there", fails},
		{"layer of another key", 'l', replace(`"id":`, `"id":1`), "array", "layer row", fails},
		{"volume head", 'v', replace(`"head":`, `"head":7`), "array", "is not there", fails},
		{"volume head sealed", 'v', replace(`"head":3`, `"head":2`), "array", "layer 2", fails},
		{"volume size", 'v', replace(`"size":2097152`, `"size":2097153`), "array", "multiple of 4 KiB", fails},
		{"volume field", 'v', replace(`"head"`, `"heat"`), "array", `unknown field`, fails},
		{"volume cut short", 'v', func(key, value []byte) []byte { return value[:len(value)/2] }, "array", "volume row", fails},
		{"volume twice", 'v', func(key, value []byte) []byte { return append(value, value...) }, "array", "volume row", fails},
		{"state gone", 'a', gone, "array", "no state", fails},
		{"state version", 'a', replace(`"version":1`, `"version":2`), "array", "version 2", fails},
		{"state cut short", 'a', func(key, value []byte) []byte { return value[:9] }, "array", "state row", fails},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := s.copy(t)
			d.editStore(tt.prefix, tt.change)
			d.finds(tt.kind, tt.words)
			if err := d.tryOpen(); (err != nil) != (tt.opens == fails) {
				t.Fatalf("Open: %v", err)
			}
			if d.a != nil {
				d.a.Close()
			}
		})
	}
}

// TestDamagedStoreFiles flips bits in the files of the metadata store. Its own
// checksums see to it that reads are right or fail.
func TestDamagedStoreFiles(t *testing.T) {
	oneByOne(t)
	s := newSound(t)
	rng := rand.New(rand.NewPCG(6, 6))
	names, err := s.fs.List("meta")
	if err != nil {
		t.Fatal(err)
	}
	found, tried := 0, 0
	for _, name := range names {
		for range times(10) {
			d := s.copy(t)
			if !flipBit(t, d.fs, path.Join("meta", name), rng) {
				break
			}
			o := d.opts
			o.Devices, o.FS, o.Meta = d.devices(), d.fs, "meta"
			report, err := Check(context.Background(), o, nil)
			bad, openErr := d.reads()
			if strings.HasSuffix(name, ".sst") {
				tried++
				if err != nil || len(report.Problems) > 0 {
					found++
				} else if bad != 0 {
					t.Fatalf("%s: Check found nothing, but %v", name, openErr)
				}
			}
		}
	}
	t.Logf("%d of %d flips in tables were found", found, tried)
	if tried == 0 || found < tried/2 {
		t.Fatalf("%d of %d flips in tables were found", found, tried)
	}
}

// flipBit flips one bit of a file; false if it is empty.
func flipBit(t *testing.T, fs vfs.FS, name string, rng *rand.Rand) bool {
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 {
		return false
	}
	at := rng.Int64N(info.Size())
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	b[0] ^= 1 << rng.IntN(8)
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	return true
}
