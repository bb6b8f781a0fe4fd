package main

import (
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// recordOnDisk is a record whose header is intact.
type recordOnDisk struct {
	header format.RecordHeader
	raw    []byte // the header's sectors; valid until the next record
}

// recordLine is a record for people and programs.
type recordLine struct {
	Sector     uint32   `json:"sector"`
	Sectors    uint32   `json:"sectors"` // header and blocks
	Generation uint64   `json:"generation"`
	Epoch      uint64   `json:"epoch"`
	FirstLSN   uint64   `json:"first_lsn"`
	LastLSN    uint64   `json:"last_lsn"`
	DurableLSN uint64   `json:"durable_lsn"`
	Blocks     uint32   `json:"blocks"`
	Flags      string   `json:"flags"`
	Entries    []string `json:"entries"`
}

func (r *recordOnDisk) line() (recordLine, error) {
	h := &r.header
	l := recordLine{
		Sector: h.Sector, Sectors: h.TotalSectors(), Generation: h.Generation, Epoch: h.Epoch, FirstLSN: h.FirstLSN, LastLSN: h.LastLSN(),
		DurableLSN: h.DurableLSN, Blocks: h.Blocks,
	}
	if h.Flags&format.FlagAgain != 0 {
		l.Flags += ", again"
	}
	if h.Flags&format.FlagVoid != 0 {
		l.Flags += ", void"
	}
	err := format.DecodeEntries(r.raw, h, func(e *format.Entry) error {
		l.Entries = append(l.Entries, describe(e))
		return nil
	})
	return l, err
}

func describe(e *format.Entry) string {
	at := fmt.Sprintf("layer %d, blocks %d to %d", e.Layer, e.Block, e.Block+e.Count-1)
	switch e.Kind {
	case format.EntryWrite:
		return "write " + at
	case format.EntryTrim:
		return "trim " + at
	case format.EntryZero:
		return "zero " + at
	case format.EntryMove:
		return fmt.Sprintf("move layer %d, block %d of LSN %d from %v", e.Layer, e.Block, e.OldLSN, e.From)
	case format.EntryAdmin:
		return "change " + string(e.Payload)
	}
	return fmt.Sprintf("entry of kind %d", e.Kind)
}

// windowBytes is how much of a segment is read at a time. In a segment that was used the first record, or one that
// was rewritten after a failed append, begins within probeBytes.
const (
	windowBytes = 256 << 10
	probeBytes  = 128 << 10
)

// segmentReader reads parts of a segment through a window.
type segmentReader struct {
	dev        blockdev.Device
	base, size int64
	window     []byte
	at         int64 // where the window begins in the segment
}

// bytes are n bytes at an offset of the segment.
func (r *segmentReader) bytes(off int64, n int) ([]byte, error) {
	if off < r.at || off+int64(n) > r.at+int64(len(r.window)) {
		length := min(max(windowBytes, int64(n)), r.size-off)
		if int64(cap(r.window)) < length {
			r.window = make([]byte, length)
		}
		r.window = r.window[:length]
		r.at = off
		if err := r.dev.ReadAt(r.window, r.base+off); err != nil {
			r.window = r.window[:0]
			return nil, err
		}
	}
	return r.window[off-r.at:][:n], nil
}

// eachRecord calls fn with every record of a segment that has an intact header and is of the same use of the
// segment as the first one. It changes nothing and believes nothing. within: of records of earlier epochs the data is read
// and searched as well, as by a start: one that was dropped may reach over others.
func eachRecord(dev blockdev.Device, super *format.Superblock, seg uint32, within bool, fn func(*recordOnDisk) error) error {
	size := int64(super.SegmentSize)
	r := &segmentReader{dev: dev, base: format.SegmentsOffset + int64(seg)*size, size: size}
	sectors := uint32(size / format.SectorSize)
	generation := uint64(0)
	for at := uint32(0); at < sectors; {
		rec, err := r.record(at, seg, super)
		if err != nil {
			return err
		}
		if rec == nil || generation != 0 && rec.header.Generation != generation || at+rec.header.TotalSectors() > sectors {
			if generation == 0 && at >= probeBytes/format.SectorSize {
				return nil
			}
			at++
			continue
		}
		generation = rec.header.Generation
		if err := fn(rec); err != nil {
			return err
		}
		if within && rec.header.Epoch < super.Epoch {
			at += uint32(rec.header.Sectors)
		} else {
			at += rec.header.TotalSectors()
		}
	}
	return nil
}

// record is the record that begins at a sector, or nil.
func (r *segmentReader) record(at, seg uint32, super *format.Superblock) (*recordOnDisk, error) {
	off := int64(at) * format.SectorSize
	sector, err := r.bytes(off, format.SectorSize)
	if err != nil {
		return nil, err
	}
	h, ok := format.PeekRecordHeader(sector)
	if !ok || h.Segment != seg || h.Sector != at || int(h.Device) != int(super.Slot) {
		return nil, nil
	}
	n := int(h.Sectors) * format.SectorSize
	if off+int64(n) > r.size {
		return nil, nil
	}
	raw, err := r.bytes(off, n)
	if err != nil {
		return nil, err
	}
	if !format.CheckRecordHeader(raw, &h, super.Secret) {
		return nil, nil
	}
	return &recordOnDisk{h, raw}, nil
}
