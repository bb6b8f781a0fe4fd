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
	a.eachRecord(buf, d, j.seg, generation, func(h format.RecordHeader, header, data []byte) {
		if h.FirstLSN <= after || h.Epoch != a.epoch() && !planted(ruleRaiseEpoch) && !planted(ruleNewGeneration) {
			return
		}
		r := &scannedRecord{h: h, header: slices.Clone(header)}
		r.intact = planted(ruleVerifyScannedData) || dataIntact(header, &h, data)
		records = append(records, r)
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
func (a *Array) eachRecord(buf []byte, d *device, seg uint32, generation uint64, fn func(h format.RecordHeader, header, data []byte)) {
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
		fn(h, buf[at:headerEnd], buf[headerEnd:end])
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

// orderAndCut chooses the records that count: in order of LSN without a gap.
// A gap above what is known to be durable is the tail of the crash; one below
// is damage, and an array that lacks durable changes is not opened.
func (a *Array) orderAndCut(found *scanned) (string, error) {
	slices.SortStableFunc(found.records, a.compareRecords)
	durable := a.checkpoint.lsn.Load()
	for _, r := range found.records {
		durable = max(durable, r.h.DurableLSN)
	}
	a.recovery.maxDurable = durable
	next := a.checkpoint.lsn.Load() + 1
	for i, r := range found.records {
		if r.h.LastLSN() < next {
			continue // another copy of it was taken
		}
		if r.h.FirstLSN > next {
			if next <= durable && !planted(ruleGapIsDamage) {
				gap := fmt.Sprintf("LSN %d to %d are missing, and everything up to %d was durable", next, r.h.FirstLSN-1, durable)
				if !a.readOnly && !a.degraded {
					return "", fmt.Errorf("%w: %s", ErrGap, gap)
				}
				a.recovery.Gaps = append(a.recovery.Gaps, gap)
			} else if (!a.degraded || planted(ruleGapsOfLost)) && !planted(ruleCutAtGap) {
				break
			}
		}
		if !r.intact {
			if hasIntact(found.records[i+1:], r.h.FirstLSN) {
				continue
			}
			if r.h.LastLSN() > durable {
				break
			}
			a.recovery.Damaged++
			a.log.Error("a durable record is damaged; reads of its blocks will fail", "lsn", r.h.FirstLSN, "device", a.devs()[r.h.Device].dev.Name(), "segment", r.h.Segment)
		}
		if r.h.Flags&format.FlagTwo != 0 {
			if r.second = otherCopy(found.records[i+1:], r); r.second == nil {
				a.recovery.OneCopy++
			}
		}
		found.accept(r)
		next = r.h.LastLSN() + 1
	}
	if next <= durable && !planted(ruleGapIsDamage) {
		gap := fmt.Sprintf("it ends at LSN %d, and everything up to %d was durable", next-1, durable)
		if !a.readOnly && !a.degraded {
			return "", fmt.Errorf("%w: %s", ErrGap, gap)
		}
		a.recovery.Gaps = append(a.recovery.Gaps, gap)
	}
	a.recovery.CutLSN = next - 1
	a.recovery.Discarded = len(found.records) - found.counted
	a.keepTail(found, durable)
	return fmt.Sprintf("%d records up to LSN %d, %d behind it dropped", len(found.accepted), next-1, a.recovery.Discarded), nil
}

// compareRecords orders by LSN; of several records with the same one, that
// which counts comes first: a void, then one appended again, then one on a
// device in service.
func (a *Array) compareRecords(x, y *scannedRecord) int {
	rank := func(r *scannedRecord) int {
		n := 0
		if !a.devs()[r.h.Device].writable.Load() {
			n = 1
		}
		switch {
		case r.h.Flags&format.FlagVoid != 0:
			if planted(ruleVoidWins) {
				return n + 6
			}
			return n
		case r.h.Flags&format.FlagAgain != 0:
			return n + 2
		}
		return n + 4
	}
	if x.h.FirstLSN != y.h.FirstLSN {
		if x.h.FirstLSN < y.h.FirstLSN {
			return -1
		}
		return 1
	}
	return rank(x) - rank(y)
}

func hasIntact(rest []*scannedRecord, lsn uint64) bool {
	for _, r := range rest {
		if r.h.FirstLSN != lsn {
			return false
		}
		if r.intact {
			return true
		}
	}
	return false
}

// otherCopy finds the copy of a record that counts besides it, among those that
// follow on it: on another device, and as good.
func otherCopy(rest []*scannedRecord, r *scannedRecord) *scannedRecord {
	for _, o := range rest {
		if o.h.FirstLSN != r.h.FirstLSN {
			break
		}
		if o.h.Device != r.h.Device && o.h.LSNs == r.h.LSNs && o.h.Flags&format.FlagTwo != 0 && o.intact == r.intact {
			return o
		}
	}
	return nil
}

func (f *scanned) accept(r *scannedRecord) {
	f.accepted = append(f.accepted, r)
	f.use(r)
	if r.second != nil {
		f.use(r.second)
	}
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
