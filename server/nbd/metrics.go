package nbd

import (
	"time"

	"lsad/internal/nbdproto"
)

// Op is a kind of request, for metrics.
type Op uint8

// The kinds of request.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpTrim
	OpWriteZeroes
	OpCache
	OpBlockStatus
	NumOps
)

var opNames = [NumOps]string{"read", "write", "flush", "trim", "write_zeroes", "cache", "block_status"}

// String is the name of the operation as metrics label it.
func (o Op) String() string {
	if o < NumOps {
		return opNames[o]
	}
	return "unknown"
}

// Metrics hands out recorders.
type Metrics interface {
	// Export returns the recorder for requests to the export of that (canonical) name. It is called once
	// for each connection; the recorders of many connections may be one and the same.
	Export(name string) Recorder
}

// Recorder is told of finished requests. It is called from the data path, from many goroutines at once,
// and must not block.
type Recorder interface {
	// Record says that n requests of one kind were answered together, errors of them with an error, the
	// others with so many bytes in all. latency is the time from the moment they were received to the
	// moment they were answered: for those served as they came, when their batch's replies had left.
	Record(op Op, n int, bytes int64, errors int, latency time.Duration)
}

// opOf is the kind of a command; ok is false for those that have none.
func opOf(cmd uint16) (op Op, ok bool) {
	switch cmd {
	case nbdproto.CmdRead:
		return OpRead, true
	case nbdproto.CmdWrite:
		return OpWrite, true
	case nbdproto.CmdFlush:
		return OpFlush, true
	case nbdproto.CmdTrim:
		return OpTrim, true
	case nbdproto.CmdWriteZeroes:
		return OpWriteZeroes, true
	case nbdproto.CmdCache:
		return OpCache, true
	case nbdproto.CmdBlockStatus:
		return OpBlockStatus, true
	}
	return 0, false
}

// tally counts the requests of one batch.
type tally struct {
	n, errors int
	bytes     int64
}

// batchStats gathers what a batch did, so that the recorder is called once per kind and batch, and the
// clock is read twice per batch.
type batchStats struct {
	rec   Recorder // nil without metrics
	start time.Time
	ops   [NumOps]tally
	dirty bool
}

func (s *batchStats) begin() {
	if s.rec != nil {
		s.start = time.Now()
	}
}

func (s *batchStats) add(cmd uint16, bytes int64, failed bool) {
	if s.rec == nil {
		return
	}
	op, ok := opOf(cmd)
	if !ok {
		return
	}
	t := &s.ops[op]
	t.n++
	if failed {
		t.errors++
	} else {
		t.bytes += bytes
	}
	s.dirty = true
}

func (s *batchStats) end() {
	if !s.dirty {
		return
	}
	d := time.Since(s.start)
	for op := range s.ops {
		if t := &s.ops[op]; t.n > 0 {
			s.rec.Record(Op(op), t.n, t.bytes, t.errors, d)
			*t = tally{}
		}
	}
	s.dirty = false
}
