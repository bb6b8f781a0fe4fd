package blockdev

import (
	"slices"
	"sync"
)

// Fault says which operations of a Faulty go wrong, and how.
type Fault struct {
	Kind OpKind
	// Off and Len bound it to operations that touch the range, in bytes; a
	// Len of 0 means every operation. A Sync touches no range.
	Off, Len int64
	// Skip lets as many of these operations pass first.
	Skip int
	// Times is how often it happens; 0 means always from then on.
	Times int

	// Err is the error to return. Nil makes a lie of the operation: it
	// reports success, and was not done. (A read returns zeros.)
	Err error
	// Done is how many bytes of a write are written before Err comes.
	Done int64
	// Shift, with no Err, misdirects a read or a write instead: it goes that
	// many bytes further on.
	Shift int64
}

// Faulty passes operations on to another device, except where a fault that
// was injected says otherwise. To fail the Sync of a Mem use Mem.OnOp: then
// the Mem knows that what the Sync should have covered may never be durable.
type Faulty struct {
	Device

	mu     sync.Mutex
	faults []*Fault
	hits   int
}

// NewFaulty wraps a device. Nothing goes wrong until a fault is injected.
func NewFaulty(d Device) *Faulty { return &Faulty{Device: d} }

// Inject adds a fault. Of several that match an operation the first counts.
func (f *Faulty) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// Heal removes all faults.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Hits is how many operations went wrong so far, so that a test can tell
// that it tested something.
func (f *Faulty) Hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// match returns what goes wrong with an operation, or nil.
func (f *Faulty) match(kind OpKind, off, n int64) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.faults {
		if fault.Kind != kind || !fault.touches(off, n) {
			continue
		}
		if fault.Skip > 0 {
			fault.Skip--
			continue
		}
		hit := *fault
		if fault.Times--; fault.Times == 0 {
			f.faults = slices.Delete(f.faults, i, i+1)
		}
		f.hits++
		return &hit
	}
	return nil
}

func (fault *Fault) touches(off, n int64) bool {
	return fault.Len == 0 || fault.Kind == OpSync || off < fault.Off+fault.Len && fault.Off < off+n
}

// ReadAt implements Device.
func (f *Faulty) ReadAt(p []byte, off int64) error {
	n := int64(len(p))
	fault := f.match(OpRead, off, n)
	switch {
	case fault == nil:
		return f.Device.ReadAt(p, off)
	case fault.Err != nil:
		return opError(f.Name(), "read", off, n, fault.Err)
	case fault.Shift != 0:
		return f.Device.ReadAt(p, off+fault.Shift)
	}
	clear(p)
	return nil
}

// TryReadAt implements Device. What a fault of reads touches would block, so
// that ReadAt meets the fault; a fault of OpTryRead can return ErrWouldBlock.
func (f *Faulty) TryReadAt(p []byte, off int64) error {
	n := int64(len(p))
	if fault := f.match(OpTryRead, off, n); fault != nil && fault.Err != nil {
		return fault.Err
	}
	if f.pending(OpRead, off, n) {
		return ErrWouldBlock
	}
	return f.Device.TryReadAt(p, off)
}

// pending says whether an operation is matched by a fault, now or later.
func (f *Faulty) pending(kind OpKind, off, n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.faults, func(fault *Fault) bool {
		return fault.Kind == kind && fault.touches(off, n)
	})
}

// WriteVec implements Device.
func (f *Faulty) WriteVec(bufs [][]byte, off int64) error {
	n := vecLen(bufs)
	fault := f.match(OpWrite, off, n)
	switch {
	case fault == nil:
		return f.Device.WriteVec(bufs, off)
	case fault.Err != nil:
		if done := min(fault.Done, n); done > 0 {
			if err := f.Device.WriteVec(sliceVec(bufs, 0, done), off); err != nil {
				return err
			}
		}
		return opError(f.Name(), "write", off, n, fault.Err)
	case fault.Shift != 0:
		return f.Device.WriteVec(bufs, off+fault.Shift)
	}
	return nil
}

// Sync implements Device.
func (f *Faulty) Sync() error {
	if fault := f.match(OpSync, 0, 0); fault != nil {
		return faultError(f.Name(), OpSync, 0, 0, fault)
	}
	return f.Device.Sync()
}

// Allocate implements Device.
func (f *Faulty) Allocate(off, n int64) error {
	if fault := f.match(OpAllocate, off, n); fault != nil {
		return faultError(f.Name(), OpAllocate, off, n, fault)
	}
	return f.Device.Allocate(off, n)
}

// Discard implements Device.
func (f *Faulty) Discard(off, n int64) error {
	if fault := f.match(OpDiscard, off, n); fault != nil {
		return faultError(f.Name(), OpDiscard, off, n, fault)
	}
	return f.Device.Discard(off, n)
}

func faultError(name string, kind OpKind, off, n int64, fault *Fault) error {
	if fault.Err == nil {
		return nil
	}
	return opError(name, kind.String(), off, n, fault.Err)
}
