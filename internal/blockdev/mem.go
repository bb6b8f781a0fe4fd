package blockdev

import (
	"fmt"
	"math"
	"sync"
)

// OpKind is what an operation on a Mem does.
type OpKind int

// The operations that Mem.OnOp sees.
const (
	OpRead OpKind = iota
	OpTryRead
	OpWrite
	OpSync
	OpAllocate
	OpDiscard
)

func (k OpKind) String() string {
	return [...]string{"read", "try-read", "write", "sync", "allocate", "discard"}[k]
}

// Op is an operation that is about to take effect.
type Op struct {
	Device *Mem
	Kind   OpKind
	Off    int64 // bytes; 0 for OpSync
	Len    int64 // bytes; 0 for OpSync
}

// Mem is a Device in memory that can lose power. It remembers what was
// written, what completed and what was synced; CrashClone makes devices that
// a power loss at this instant could have left, KillClone what the next
// process finds after kill -9. Space is taken as it is written.
//
// Lock order: the mutex of CrashAll and KillAll, then Mem.mu of any number of
// devices in the order in which they were given. Nothing else takes two.
type Mem struct {
	// OnOp, if not nil, is called for each operation once it is under way and
	// before it takes effect: a clone made during the call may have it whole,
	// in part or not at all. An error fails the operation, which then has no
	// effect, except that a failed Sync leaves what it should have covered to
	// chance until it is written again. It is called without locks held and
	// from many goroutines at once; set it before the device is used.
	OnOp func(Op) error

	name    string
	size    int64
	durable bool // remember nothing: each write is durable at once

	mu       sync.RWMutex
	pages    pageTable
	unsynced unsynced
	inFlight []*flight
	limit    int64 // pages that may be used
	closed   bool
}

// flight is a change that was issued and did not complete yet.
type flight struct {
	kind   OpKind
	off, n int64
	bufs   [][]byte // of a write; nil means zeros
}

var _ Device = (*Mem)(nil)

// NewMem makes an empty device of size bytes. What a change replaced is kept
// until the next Sync, so one that is never synced grows with each write.
func NewMem(name string, size int64) *Mem {
	return &Mem{name: name, size: size, pages: newPageTable(size), limit: math.MaxInt64}
}

// NewDurableMem makes a Mem whose changes are durable at once. It remembers
// nothing, so it costs no more than its contents: for benchmarks.
func NewDurableMem(name string, size int64) *Mem {
	m := NewMem(name, size)
	m.durable = true
	return m
}

// Name is the name that NewMem was given.
func (m *Mem) Name() string { return m.name }

// Size is the length in bytes.
func (m *Mem) Size() int64 { return m.size }

// SetSpace bounds the space that writes and allocations may take, in bytes
// rounded down to pages of 16 KiB, as a full file system would. Discard gives
// whole pages back. After a crash more may be in use than the bound, where a
// discard was undone and its space used again; nothing new fits then.
func (m *Mem) SetSpace(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = bytes / pageSize
}

// Used is the space taken, in bytes.
func (m *Mem) Used() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.pages.used * pageSize
}

// ReadAt implements Device.
func (m *Mem) ReadAt(p []byte, off int64) error { return m.read(OpRead, p, off) }

// TryReadAt implements Device: memory never waits, but OnOp may say that it
// does by returning ErrWouldBlock.
func (m *Mem) TryReadAt(p []byte, off int64) error { return m.read(OpTryRead, p, off) }

// Prefetch implements Device: memory has it all.
func (m *Mem) Prefetch(off, n int64) {}

func (m *Mem) read(kind OpKind, p []byte, off int64) error {
	n := int64(len(p))
	if err := checkRange(m.name, "read", off, n, m.size); err != nil {
		return err
	}
	if m.OnOp != nil {
		if err := m.OnOp(Op{m, kind, off, n}); err != nil {
			return opError(m.name, "read", off, n, err)
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return opError(m.name, "read", off, n, ErrClosed)
	}
	m.pages.read(p, off)
	return nil
}

// WriteVec implements Device.
func (m *Mem) WriteVec(bufs [][]byte, off int64) error {
	return m.change(&flight{kind: OpWrite, off: off, n: vecLen(bufs), bufs: bufs})
}

// Allocate implements Device.
func (m *Mem) Allocate(off, n int64) error {
	return m.change(&flight{kind: OpAllocate, off: off, n: n})
}

// Discard implements Device. Reads of the range return zeros afterwards.
func (m *Mem) Discard(off, n int64) error {
	return m.change(&flight{kind: OpDiscard, off: off, n: n})
}

// change does what a flight says, between the moment it is issued and the
// moment it completes.
func (m *Mem) change(f *flight) error {
	what := f.kind.String()
	if err := checkRange(m.name, what, f.off, f.n, m.size); err != nil {
		return err
	}
	if m.OnOp != nil {
		m.issue(f)
		if err := m.OnOp(Op{m, f.kind, f.off, f.n}); err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.land(f)
			return opError(m.name, what, f.off, f.n, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.land(f)
	if m.closed {
		return opError(m.name, what, f.off, f.n, ErrClosed)
	}
	if f.kind != OpDiscard && !m.fits(f.off, f.n) {
		return opError(m.name, what, f.off, f.n, ErrNoSpace)
	}
	changes := f.apply(&m.pages, !m.durable)
	if len(changes) > 0 {
		m.unsynced.add(changes)
	}
	return nil
}

// fits says whether the space for a range is there or may be taken.
func (m *Mem) fits(off, n int64) bool {
	if m.limit == math.MaxInt64 {
		return true
	}
	missing := m.pages.missing(off, n)
	return missing == 0 || missing <= m.limit-m.pages.used
}

// issue puts a flight on the list, land takes it off (if it is there).
func (m *Mem) issue(f *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight = append(m.inFlight, f)
}

func (m *Mem) land(f *flight) {
	for i := range m.inFlight {
		if m.inFlight[i] == f {
			m.inFlight = append(m.inFlight[:i], m.inFlight[i+1:]...)
			return
		}
	}
}

// Sync implements Device: what completed before the call becomes durable.
func (m *Mem) Sync() error {
	m.mu.RLock()
	mark := m.unsynced.nextSeq
	m.mu.RUnlock()
	var err error
	if m.OnOp != nil {
		err = m.OnOp(Op{Device: m, Kind: OpSync})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("%s: sync: %w", m.name, ErrClosed)
	}
	if err != nil {
		m.unsynced.taint(mark)
		return fmt.Errorf("%s: sync: %w", m.name, err)
	}
	m.unsynced.settle(mark)
	return nil
}

// Corrupt flips the bits of mask in the bytes from off, as damage on the
// medium does. It is not an operation: OnOp does not see it and no crash
// takes it back.
func (m *Mem) Corrupt(off int64, mask []byte) {
	if err := checkRange(m.name, "corrupt", off, int64(len(mask)), m.size); err != nil {
		panic(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := make([]byte, len(mask))
	m.pages.read(b, off)
	for i := range b {
		b[i] ^= mask[i]
	}
	f := flight{kind: OpWrite, off: off, n: int64(len(b)), bufs: [][]byte{b}}
	f.apply(&m.pages, false)
}

// Close implements Device. A KillClone of a closed Mem is open again.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("%s: close: %w", m.name, ErrClosed)
	}
	m.closed = true
	return nil
}
