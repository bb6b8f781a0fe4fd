package ublk

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is an Export that remembers what it was asked.
type memory struct {
	size int64
	fail error

	mu    sync.Mutex
	calls []string
}

func (m *memory) note(format string, args ...any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
	return m.fail
}

// count is how often a call was made.
func (m *memory) count(call string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if c == call {
			n++
		}
	}
	return n
}

func (m *memory) Size() int64    { return m.size }
func (m *memory) ReadOnly() bool { return false }
func (m *memory) TryReadAt(p []byte, off int64) (bool, error) {
	return false, nil
}
func (m *memory) ReadAt(p []byte, off int64) error { return m.note("read %d at %d", len(p), off) }
func (m *memory) WriteBatch(offs []int64, data [][]byte, errs []error) {
	for i := range offs {
		errs[i] = m.note("write %d at %d", len(data[i]), offs[i])
	}
}
func (m *memory) Trim(off, n int64) error { return m.note("trim %d at %d", n, off) }
func (m *memory) WriteZeroes(off, n int64, noHole bool) error {
	return m.note("zero %d at %d, no hole %v", n, off, noHole)
}
func (m *memory) Flush() error { return m.note("flush") }
func (m *memory) Close() error { return m.note("close") }

// newTestQueue is a queue without a driver, whose requests are reqs.
func newTestQueue(m *memory, reqs ...desc) *queue {
	d := &Device{info: Info{Depth: len(reqs), maxRequest: 64 << 10}, export: m}
	q := newQueue(d, 0)
	q.now = time.Now()
	q.descs = unsafe.Slice((*byte)(unsafe.Pointer(&reqs[0])), len(reqs)*descSize)
	q.buffers = make([]byte, len(reqs)*d.info.maxRequest)
	return q
}

// TestJobs holds what each request becomes, and what the kernel is told of it.
func TestJobs(t *testing.T) {
	for _, c := range []struct {
		name string
		req  desc
		fail error
		call []string
		res  int32
	}{
		{"read", desc{flags: opRead, sectors: 8, start: 16}, nil, []string{"read 4096 at 8192"}, 4096},
		{"failed read", desc{flags: opRead, sectors: 8}, unix.EIO, []string{"read 4096 at 0"}, -int32(unix.EIO)},
		{"discard", desc{flags: opDiscard, sectors: 1 << 23, start: 8}, nil, []string{"trim 4294967296 at 4096"}, 0},
		{"write zeroes", desc{flags: opWriteZeroes, sectors: 8}, nil, []string{"zero 4096 at 0, no hole false"}, 0},
		{"write zeroes, allocated", desc{flags: opWriteZeroes | flagNoUnmap, sectors: 8}, nil, []string{"zero 4096 at 0, no hole true"}, 0},
		{"write zeroes, FUA", desc{flags: opWriteZeroes | flagFUA, sectors: 8}, nil, []string{"zero 4096 at 0, no hole false", "flush"}, 0},
		{"zone append", desc{flags: 15, sectors: 8}, nil, nil, -int32(unix.EOPNOTSUPP)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{size: 1 << 30, fail: c.fail}
			q := newTestQueue(m, c.req)
			j := q.newJob()
			j.single, j.req = true, c.req
			j.execute()
			if !slices.Equal(m.calls, c.call) || len(j.results) != 1 || j.results[0] != (result{0, c.res}) {
				t.Errorf("calls %q, results %v", m.calls, j.results)
			}
		})
	}
}

// TestBatchJob holds that writes with FUA, and flushes that came with them, are answered after a flush, the other
// writes without, and that a failed write is never called flushed.
func TestBatchJob(t *testing.T) {
	write := desc{flags: opWrite, sectors: 8}
	fua := desc{flags: opWrite | flagFUA, sectors: 8, start: 8}
	m := &memory{size: 1 << 30}
	q := newTestQueue(m, write, fua, desc{flags: opFlush})
	q.writes.add(0, false, 0, q.buffer(0)[:4096])
	q.writes.add(1, true, 4096, q.buffer(1)[:4096])
	j := q.newJob()
	j.writes, j.flush = q.writes, append(j.flush, 2)
	j.execute()
	if want := []string{"write 4096 at 0", "write 4096 at 4096", "flush"}; !slices.Equal(m.calls, want) {
		t.Errorf("calls %q", m.calls)
	}
	slices.SortFunc(j.results, func(a, b result) int { return int(a.tag) - int(b.tag) })
	if want := []result{{0, 4096}, {1, 4096}, {2, 0}}; !slices.Equal(j.results, want) {
		t.Errorf("results %v", j.results)
	}

	m.fail, m.calls, j.results, j.flush = unix.ENOSPC, nil, nil, nil
	clear(j.writes.errs)
	j.execute()
	for _, r := range j.results {
		if r.res != -int32(unix.ENOSPC) {
			t.Errorf("a failed write ended with %d", r.res)
		}
	}
	if slices.Contains(m.calls, "flush") {
		t.Error("flushed for nothing")
	}
}

// TestWorkers holds that every job is done once and comes back, with many at a time.
func TestWorkers(t *testing.T) {
	const depth = 100
	reqs := slices.Repeat([]desc{{flags: opRead, sectors: 8}}, depth)
	m := &memory{size: 1 << 30}
	q := newTestQueue(m, reqs...)
	woken := make(chan struct{}, depth)
	q.results.wake = func() { woken <- struct{}{} }
	for tag := range depth {
		j := q.newJob()
		j.single, j.tag, j.req = true, uint16(tag), reqs[tag]
		q.workers.put(j)
	}
	seen := map[uint16]bool{}
	for len(seen) < depth {
		<-woken
		for _, j := range q.results.take(nil) {
			for _, r := range j.results {
				if seen[r.tag] || r.res != 4096 {
					t.Fatalf("%+v", r)
				}
				seen[r.tag] = true
			}
			q.recycle(j)
		}
	}
	q.workers.wg.Wait()
	if len(m.calls) != depth {
		t.Errorf("%d calls", len(m.calls))
	}
}

// BenchmarkJob is the way of a request through a worker and back, without the driver.
func BenchmarkJob(b *testing.B) {
	req := desc{flags: opRead, sectors: 8}
	q := newTestQueue(&memory{size: 1 << 30}, req)
	q.dev.export = &nothing{}
	woken := make(chan struct{}, 1)
	q.results.wake = func() { woken <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		j := q.newJob()
		j.single, j.req = true, req
		q.workers.put(j)
		<-woken
		q.taken = q.results.take(q.taken)
		for _, j := range q.taken {
			q.recycle(j)
		}
	}
	q.workers.wg.Wait()
}

// nothing is an Export that does nothing.
type nothing struct{ memory }

func (*nothing) ReadAt([]byte, int64) error { return nil }
