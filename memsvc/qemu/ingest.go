package qemu

import (
	"context"
	"fmt"
	"io"
	"net"
)

// RAMFile is where the pages of an ingested VM go: an empty sparse file, or something like it. Offsets are those
// of Block.Offset.
type RAMFile interface {
	io.WriterAt
	// Truncate sets the size, once, before anything is written.
	Truncate(size int64) error
	// Zero makes zeros of what was written before.
	Zero(off, n int64) error
}

// IngestOptions for Ingest. The zero value is good.
type IngestOptions struct {
	// Progress, if not nil, is told now and then how much RAM arrived for the first time, of how much, in bytes.
	Progress func(done, total int64)
}

// Ingested is what Ingest took in.
type Ingested struct {
	State *State
	// Pages that came with data, that came as zeros, and that never came: those were free as the VM's balloon had
	// told QEMU. A page that came several times counts as it came last.
	Data, Zero, Absent int64
	// Again counts pages that came again, because the guest wrote to them meanwhile.
	Again int64
}

// Ingest is the destination of one migrate command of QEMU, up to the stream's end. Pages go to ram. When it
// returns without error the VM is complete, and its source has stopped for good; until then the source goes on if
// anything fails. The connection stays open; ctx ends it.
func Ingest(ctx context.Context, conn net.Conn, ram RAMFile, o IngestOptions) (*Ingested, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	sink := &fileSink{ram: ram, progress: o.Progress}
	p := &parser{r: newReader(conn, 1<<20), pages: sink, reply: conn}
	if err := p.parse(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("ingest from %s: %w", peerName(conn), err)
	}
	return sink.result(&p.state), nil
}

// peerName is what to call the other side.
func peerName(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil && a.String() != "" && a.String() != "@" {
		return a.String()
	}
	return "QEMU"
}

// runSize is how many bytes of neighbouring pages are gathered before they are written.
const runSize = 256 << 10

// progressStep is how many bytes of RAM arrive between two calls of Progress.
const progressStep = 4 << 20

// fileSink writes pages to a RAMFile, neighbours together.
type fileSink struct {
	ram      RAMFile
	progress func(done, total int64)
	state    *State
	came     *PageSet // at least once
	data     *PageSet // with data, the last time
	again    int64
	first    int64 // pages that came once or more
	run      []byte
	runOff   int64
}

func (s *fileSink) begin(state *State) error {
	if state.IgnoresShared {
		return unsupported("the migration capability x-ignore-shared for a save: the RAM would be missing; switch it off at the source, or import the RAM's file")
	}
	s.state = state
	s.came, s.data = NewPageSet(state.Pages()), NewPageSet(state.Pages())
	s.run = make([]byte, 0, runSize)
	return s.ram.Truncate(state.Size())
}

func (s *fileSink) arrived(page int64) {
	if !s.came.Add(page) {
		s.again++
		return
	}
	if s.first++; s.progress != nil && s.first%(progressStep/PageSize) == 0 {
		s.progress(s.first*PageSize, s.state.Size())
	}
}

func (s *fileSink) page(off int64, p []byte) error {
	s.arrived(off / PageSize)
	s.data.Add(off / PageSize)
	if off != s.runOff+int64(len(s.run)) || len(s.run) == cap(s.run) {
		if err := s.flush(); err != nil {
			return err
		}
		s.runOff = off
	}
	s.run = append(s.run, p...)
	return nil
}

func (s *fileSink) zero(off int64) error {
	s.arrived(off / PageSize)
	if !s.data.Has(off / PageSize) {
		return nil
	}
	s.data.Remove(off / PageSize)
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.ram.Zero(off, PageSize); err != nil {
		return fmt.Errorf("zero RAM at %#x: %w", off, err)
	}
	return nil
}

func (s *fileSink) flush() error {
	if len(s.run) == 0 {
		return nil
	}
	if _, err := s.ram.WriteAt(s.run, s.runOff); err != nil {
		return fmt.Errorf("write RAM at %#x: %w", s.runOff, err)
	}
	s.run = s.run[:0]
	return nil
}

// end checks that data came at all: with several connections (multifd) it would have gone elsewhere.
func (s *fileSink) end() error {
	if s.data.Count() == 0 {
		return unsupported("a stream without data: switch the migration capability multifd off at the source")
	}
	return s.flush()
}

func (s *fileSink) result(state *State) *Ingested {
	r := &Ingested{State: state, Data: s.data.Count(), Again: s.again}
	r.Absent = state.Pages() - s.first
	r.Zero = s.first - r.Data
	return r
}
