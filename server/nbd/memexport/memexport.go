// Package memexport is an export held in memory, for tests and benchmarks of protocol servers. Nothing
// outlives the process. One lock guards everything; it is never held while something waits.
package memexport

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	blockSize = 4096    // the unit of holes, in bytes
	chunkSize = 1 << 20 // the unit of memory, in bytes
)

// What is known of a block.
const (
	hole = iota
	zero // allocated, reads as zeros
	data
)

// Disk is a sparse range of bytes.
type Disk struct {
	readOnly bool

	// TryReads says how often TryReadAt refuses: one call in TryReads, 1 always, 0 never. Set it before use.
	TryReads uint64
	// Fail, if set, is asked before each operation ("read", "write", "trim", "zero", "flush", "extents").
	// Set it before use.
	Fail func(op string, off, n int64) error

	size atomic.Int64

	mu     sync.RWMutex
	chunks map[int64][]byte
	states []uint8 // per block

	tries   atomic.Uint64
	flushes atomic.Int64
	opened  atomic.Int64
	batches atomic.Int64
	written atomic.Int64
}

// New returns a disk of size bytes that is one hole.
func New(size int64, readOnly bool) *Disk {
	d := &Disk{
		readOnly: readOnly,
		chunks:   make(map[int64][]byte),
		states:   make([]uint8, (size+blockSize-1)/blockSize),
	}
	d.size.Store(size)
	return d
}

// Grow makes the disk larger.
func (d *Disk) Grow(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size > d.size.Load() {
		d.states = append(d.states, make([]uint8, (size+blockSize-1)/blockSize-int64(len(d.states)))...)
		d.size.Store(size)
	}
}

// Size returns the size in bytes.
func (d *Disk) Size() int64 { return d.size.Load() }

// ReadOnly says whether writing is refused.
func (d *Disk) ReadOnly() bool { return d.readOnly }

// Flushes is how often Flush was called.
func (d *Disk) Flushes() int64 { return d.flushes.Load() }

// Batches is how many batches were written, and of how many writes in all.
func (d *Disk) Batches() (batches, writes int64) { return d.batches.Load(), d.written.Load() }

// Opened counts the users: Open adds one, Close takes one away.
func (d *Disk) Opened() int64 { return d.opened.Load() }

// Open counts a user.
func (d *Disk) Open() *Disk {
	d.opened.Add(1)
	return d
}

// Close ends a use.
func (d *Disk) Close() error {
	d.opened.Add(-1)
	return nil
}

func (d *Disk) check(op string, off, n int64) error {
	if d.Fail != nil {
		if err := d.Fail(op, off, n); err != nil {
			return err
		}
	}
	if size := d.Size(); off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%s of %d bytes at %d, in %d: %w", op, n, off, size, syscall.EINVAL)
	}
	return nil
}

// TryReadAt is ReadAt, which never waits here, except that it refuses as TryReads says.
func (d *Disk) TryReadAt(p []byte, off int64) (bool, error) {
	if d.TryReads > 0 && d.tries.Add(1)%d.TryReads == 0 {
		return false, nil
	}
	return true, d.ReadAt(p, off)
}

// ReadAt fills p.
func (d *Disk) ReadAt(p []byte, off int64) error {
	if err := d.check("read", off, int64(len(p))); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	for len(p) > 0 {
		at := off % chunkSize
		n := min(int64(len(p)), chunkSize-at)
		if c := d.chunks[off/chunkSize]; c != nil {
			copy(p[:n], c[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WriteBatch writes data[i] at offs[i], in order.
func (d *Disk) WriteBatch(offs []int64, data [][]byte, errs []error) {
	d.batches.Add(1)
	d.written.Add(int64(len(offs)))
	for i, off := range offs {
		errs[i] = d.check("write", off, int64(len(data[i])))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, off := range offs {
		if errs[i] == nil {
			d.write(data[i], off)
		}
	}
}

func (d *Disk) write(p []byte, off int64) {
	d.mark(off, int64(len(p)), data)
	for len(p) > 0 {
		c := d.chunks[off/chunkSize]
		if c == nil {
			c = make([]byte, chunkSize)
			d.chunks[off/chunkSize] = c
		}
		n := copy(c[off%chunkSize:], p)
		p, off = p[n:], off+int64(n)
	}
}

// mark sets the state of every block that the range touches.
func (d *Disk) mark(off, n int64, state uint8) {
	for b := off / blockSize; b*blockSize < off+n; b++ {
		d.states[b] = state
	}
}

// Trim makes holes of the whole blocks in the range, and leaves the rest.
func (d *Disk) Trim(off, n int64) error {
	if err := d.check("trim", off, n); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	first, last := d.wholeBlocks(off, n)
	d.zero(first*blockSize, (last-first)*blockSize, hole)
	return nil
}

// WriteZeroes makes the range read as zeros.
func (d *Disk) WriteZeroes(off, n int64, noHole bool) error {
	if err := d.check("zero", off, n); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	state := uint8(hole)
	if noHole {
		state = zero
	}
	first, last := d.wholeBlocks(off, n)
	if first == last {
		d.write(make([]byte, n), off)
		return nil
	}
	d.write(make([]byte, first*blockSize-off), off)
	d.zero(first*blockSize, (last-first)*blockSize, state)
	if end := last * blockSize; end < off+n {
		d.write(make([]byte, off+n-end), end)
	}
	return nil
}

// wholeBlocks is the range of blocks that lie wholly in [off, off+n). The disk's last one counts as whole.
func (d *Disk) wholeBlocks(off, n int64) (first, last int64) {
	first, last = (off+blockSize-1)/blockSize, (off+n)/blockSize
	if off+n == d.size.Load() {
		last = int64(len(d.states))
	}
	return first, max(first, last)
}

func (d *Disk) zero(off, n int64, state uint8) {
	d.mark(off, n, state)
	for end := off + n; off < end; {
		at := off % chunkSize
		m := min(end-off, chunkSize-at)
		if m == chunkSize {
			delete(d.chunks, off/chunkSize)
		} else if c := d.chunks[off/chunkSize]; c != nil {
			clear(c[at : at+m])
		}
		off += m
	}
}

// Flush counts.
func (d *Disk) Flush() error {
	d.flushes.Add(1)
	return d.check("flush", 0, 0)
}

// Extents tells what is known of [off, off+n).
func (d *Disk) Extents(off, n int64, fn func(n int64, hole, zero bool) bool) error {
	if err := d.check("extents", off, n); err != nil {
		return err
	}
	type run struct {
		n     int64
		state uint8
	}
	var runs []run
	d.mu.RLock()
	for end := off + n; off < end; {
		next := min((off/blockSize+1)*blockSize, end)
		state := d.states[off/blockSize]
		if k := len(runs); k > 0 && runs[k-1].state == state {
			runs[k-1].n += next - off
		} else {
			runs = append(runs, run{next - off, state})
		}
		off = next
	}
	d.mu.RUnlock()
	for _, r := range runs {
		if !fn(r.n, r.state == hole, r.state != data) {
			break
		}
	}
	return nil
}
