package lsa

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"lsad/lsa/format"
)

// scannedRecord is a record with an intact header.
type scannedRecord struct {
	h      format.RecordHeader
	header []byte
	intact bool           // its data is what the header says
	second *scannedRecord // another copy that counts too
}

type segmentUse struct {
	slot uint8
	seg  uint32
}

// use is what a scanned segment turned out to hold.
type use struct {
	generation uint64
	used       uint32
	firstLSN   uint64
	maxLSN     uint64
}

// scanned is what the log holds behind the checkpoint.
type scanned struct {
	records  []*scannedRecord
	accepted []*scannedRecord // that count, each with its other copy
	counted  int              // those, and their other copies
	uses     map[segmentUse]*use
	bytes    int64
}

// probeBytes of a ready segment are searched for a first record; if none
// begins there, the segment was not opened.
const probeBytes = 128 << 10

// scan reads the segments that may hold records behind the checkpoint: those
// open at the time, ready to be opened, or sealed with later records.
func (a *Array) scan(ctx context.Context) (*scanned, string, error) {
	found := &scanned{uses: map[segmentUse]*use{}}
	var jobs []segmentUse
	after := a.checkpoint.lsn.Load()
	for _, d := range a.devs() {
		if d == nil {
			continue
		}
		for i := range d.segs {
			s := &d.segs[i]
			if s.state == segOpen || s.state == segReady || s.state == segSealed && s.maxLSN > after {
				jobs = append(jobs, segmentUse{d.slot, uint32(i)})
			}
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	next := make(chan segmentUse)
	for range min(len(jobs), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			buf := make([]byte, a.super.segmentSize)
			for j := range next {
				records, n, err := a.scanUse(j, buf, after)
				mu.Lock()
				found.records = append(found.records, records...)
				found.bytes += n
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, j := range jobs {
		if ctx.Err() != nil {
			break
		}
		next <- j
	}
	close(next)
	wg.Wait()
	a.recovery.Bytes = found.bytes
	if err := errors.Join(errs...); err != nil {
		return nil, "", err
	}
	return found, fmt.Sprintf("%d records in %d segments, %d MiB read", len(found.records), len(jobs), found.bytes>>20), ctx.Err()
}

// scanUse scans one segment for records of the use that may have been open.
func (a *Array) scanUse(j segmentUse, buf []byte, after uint64) ([]*scannedRecord, int64, error) {
	d := a.devs()[j.slot]
	s := &d.segs[j.seg]
	generation := s.generation
	if s.state == segReady {
		if !planted(ruleNewGeneration) || generation == 0 {
			generation++
		}
		probe := buf[:min(len(buf), probeBytes)]
		if err := d.dev.ReadAt(probe, d.offset(j.seg, 0)); err != nil {
			return nil, 0, fmt.Errorf("scan device %s segment %d: %w", d.dev.Name(), j.seg, err)
		}
		if !a.anyRecord(probe, d, j.seg, generation) {
			return nil, int64(len(probe)), nil
		}
	}
	if err := d.dev.ReadAt(buf, d.offset(j.seg, 0)); err != nil {
		return nil, 0, fmt.Errorf("scan device %s segment %d: %w", d.dev.Name(), j.seg, err)
	}
	var records []*scannedRecord
	a.eachRecord(buf, d, j.seg, generation, func(h format.RecordHeader, header, data []byte) (mine bool) {
		mine = h.Epoch == a.epoch() || planted(ruleRaiseEpoch) || planted(ruleNewGeneration)
		if !mine || h.FirstLSN <= after {
			return mine
		}
		r := &scannedRecord{h: h, header: slices.Clone(header)}
		r.intact = planted(ruleVerifyScannedData) || dataIntact(header, &h, data)
		records = append(records, r)
		return mine
	})
	return records, int64(len(buf)), nil
}

func (a *Array) anyRecord(buf []byte, d *device, seg uint32, generation uint64) bool {
	for at := 0; at+format.SectorSize <= len(buf); at += format.SectorSize {
		h, ok := format.PeekRecordHeader(buf[at:])
		if ok && h.Generation == generation && h.Segment == seg && h.Device == uint16(d.slot) && h.Sector == uint32(at/format.SectorSize) {
			return true
		}
	}
	return false
}

// eachRecord calls fn with every record of one use of a segment whose header is
// intact. Where a record does not follow on the last, it looks on, sector by
// sector: an append that failed leaves a hole, and what lies behind it counts.
// Data that a guest wrote cannot pass for a record: the checksum is seeded.
// Of a record that is not mine, of an earlier epoch, the data is searched as well:
// should it have been dropped, its room was free for others.
func (a *Array) eachRecord(buf []byte, d *device, seg uint32, generation uint64, fn func(h format.RecordHeader, header, data []byte) (mine bool)) {
	for at := 0; at+format.SectorSize <= len(buf); {
		h, ok := format.PeekRecordHeader(buf[at:])
		end := at + int(h.TotalSectors())*format.SectorSize
		headerEnd := at + int(h.Sectors)*format.SectorSize
		if !ok || end > len(buf) || h.Device != uint16(d.slot) || h.Segment != seg ||
			h.Sector != uint32(at/format.SectorSize) || h.Generation != generation ||
			!format.CheckRecordHeader(buf[at:headerEnd], &h, a.super.secret) {
			at += format.SectorSize
			continue
		}
		if !fn(h, buf[at:headerEnd], buf[headerEnd:end]) {
			end = headerEnd
		}
		at = end
	}
}

// dataIntact checks every block of a record.
func dataIntact(header []byte, h *format.RecordHeader, data []byte) bool {
	err := format.DecodeEntries(header, h, func(e *format.Entry) error {
		for i := range e.DataBlocks() {
			if format.Checksum(data[:format.BlockSize]) != e.CRC(i) {
				return ErrDamaged
			}
			data = data[format.BlockSize:]
		}
		return nil
	})
	return err == nil
}

// use notes which part of its segment a record that counts takes.
func (f *scanned) use(r *scannedRecord) {
	f.counted++
	key := segmentUse{uint8(r.h.Device), r.h.Segment}
	u := f.uses[key]
	if u == nil {
		u = &use{firstLSN: r.h.FirstLSN}
		f.uses[key] = u
	}
	u.generation = r.h.Generation
	u.used = max(u.used, r.h.Sector+r.h.TotalSectors())
	u.maxLSN = max(u.maxLSN, r.h.LastLSN())
}
