package crash

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// trail is what the devices of a site were asked for, with begin and end.
type trail struct {
	on    bool // set before the site is used
	mu    sync.Mutex
	steps []trailStep
}

// trailStep is one end of an operation, or something else that happened.
type trailStep struct {
	at     time.Time
	slot   int
	kind   blockdev.OpKind
	off, n int64
	lsn    uint64 // of the first record written, 0 if it is none
	err    error
	end    bool
	what   string // instead of all that: what happened otherwise
}

func (t *trail) add(s trailStep) {
	if !t.on {
		return
	}
	s.at = time.Now()
	t.mu.Lock()
	t.steps = append(t.steps, s)
	t.mu.Unlock()
}

// around notes an operation before and after it is done.
func (t *trail) around(s trailStep, do func() error) error {
	t.add(s)
	s.err = do()
	s.end = true
	t.add(s)
	return s.err
}

// soFar is what was noted until now; it does not change any more.
func (t *trail) soFar() []trailStep {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.steps[:len(t.steps):len(t.steps)]
}

func (s *trailStep) String() string {
	at := s.at.Format("15:04:05.000000")
	if s.what != "" {
		return fmt.Sprintf("%s %s", at, s.what)
	}
	edge := "begin"
	if s.end {
		edge = "end"
	}
	line := fmt.Sprintf("%s %-5s %v of device %d at %d+%d", at, edge, s.kind, s.slot, s.off, s.n)
	if s.lsn != 0 {
		line += fmt.Sprintf(" LSN %d", s.lsn)
	}
	if s.err != nil {
		line += fmt.Sprintf(": %v", s.err)
	}
	return line
}

// firstLSN of the record that is written, 0 if it is something else.
func firstLSN(bufs [][]byte) uint64 {
	if len(bufs) == 0 {
		return 0
	}
	h, _ := format.PeekRecordHeader(bufs[0])
	return h.FirstLSN
}

// logKeeper keeps what is logged, until it is told to begin anew.
type logKeeper struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logKeeper) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logKeeper) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func (l *logKeeper) writeTo(w io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := w.Write(l.buf.Bytes())
	return err
}
