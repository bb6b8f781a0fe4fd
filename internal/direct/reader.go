package direct

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// SpanBlocks is how many blocks are asked for at once, or fewer at the end: 64 MiB, for which rows take 256 KiB. The
// answer of a busy server takes 10 ms and more, whatever its length.
const SpanBlocks = 16384

// maxSpans bounds how many spans are remembered: rows of 32 GiB, which take 128 MiB.
const maxSpans = 512

// spansAhead is how many are asked for before somebody who reads on needs them.
const spansAhead = 2

// Pauses between questions after one failed.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
)

// Answer is what the server tells of some blocks.
type Answer struct {
	Uses    string   // the file of numbers
	Base    uint64   // what the rows are good for
	Devices []string // paths by slot; "" where there is none that can be read
	Rows    []byte   // as EncodeRows writes them
}

// ErrNever says that the server tells nobody where its blocks lie, or not this process.
var ErrNever = errors.New("there are no direct reads")

// Locate asks the server about blocks. An error that wraps ErrNever is final.
type Locate func(ctx context.Context, off int64, blocks int) (*Answer, error)

// Reader reads one image or volume whose content does not change, as far as it knows where it lies. Its methods may be
// called by many goroutines at once.
type Reader struct {
	size   int64
	locate Locate
	log    *slog.Logger
	spans  []atomic.Pointer[span]
	never  atomic.Bool
	bytes  atomic.Int64
	wanted chan int64      // offset of a span that somebody missed
	turn   chan *loadState // holds the one token for loading
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// span is what is known of some blocks.
type span struct {
	v    *view
	rows []Row
	// stale: some of it is no longer true. The rest is all there is while the server is away, and is checked at each read.
	stale atomic.Bool
}

// old says whether the server should be asked.
func (s *span) old() bool { return s == nil || s.stale.Load() }

// loadState goes around with the right to load.
type loadState struct {
	v      *view   // the last one
	loaded []int64 // spans, the oldest first
	pause  time.Duration
	next   time.Time // not before then
}

// NewReader returns a Reader for size bytes, of which whole blocks can be read. It asks when something is to be read.
func NewReader(size int64, locate Locate, log *slog.Logger) *Reader {
	r := &Reader{
		size: size, locate: locate, log: log, spans: make([]atomic.Pointer[span], (size+SpanBlocks*BlockSize-1)/(SpanBlocks*BlockSize)),
		wanted: make(chan int64, 16), turn: make(chan *loadState, 1),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.turn <- &loadState{}
	r.wg.Go(r.loadWanted)
	return r
}

// Close ends all reads, and waits for what is under way.
func (r *Reader) Close() {
	r.cancel()
	r.wg.Wait()
	s := <-r.turn
	if s.v != nil {
		s.v.close()
	}
	r.turn <- s
}

// Bytes is how much was read from the devices.
func (r *Reader) Bytes() int64 { return r.bytes.Load() }

// TryReadAt fills p if that is possible and takes no wait, and says whether it did. If not, p is undefined. Where the
// rows were missing they are asked for.
func (r *Reader) TryReadAt(p []byte, off int64) bool {
	return r.read(p, off, func(i int64) *span {
		s := r.spans[i].Load()
		r.want(i)
		return s
	}, false)
}

// want has a span loaded by and by.
func (r *Reader) want(i int64) {
	if i >= int64(len(r.spans)) || !r.spans[i].Load().old() || r.never.Load() {
		return
	}
	select {
	case r.wanted <- i:
	default: // it will be missed again
	}
}

// ReadAt fills p if that is possible, and says whether it did. It may wait for the disk and for the server's answer.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) bool {
	return r.read(p, off, func(i int64) *span {
		s := r.spans[i].Load()
		if s.old() && !r.never.Load() {
			s = r.load(ctx, i)
		}
		for ahead := range int64(spansAhead) {
			r.want(i + 1 + ahead)
		}
		return s
	}, true)
}

func (r *Reader) read(p []byte, off int64, get func(i int64) *span, wait bool) bool {
	if off < 0 || off%BlockSize != 0 || len(p)%BlockSize != 0 || off > r.size || int64(len(p)) > r.size-off {
		return false
	}
	all := len(p)
	for len(p) > 0 {
		block := off / BlockSize
		i, first := block/SpanBlocks, int(block%SpanBlocks)
		s := get(i)
		if s == nil {
			return false
		}
		n := min(len(p)/BlockSize, SpanBlocks-first)
		if len(s.rows) < first+n {
			return false
		}
		if err := s.v.read(p[:n*BlockSize], s.rows[first:first+n], wait); err != nil {
			if err == errStale {
				s.stale.Store(true)
			}
			return false
		}
		p, off = p[n*BlockSize:], off+int64(n)*BlockSize
	}
	r.bytes.Add(int64(all))
	return true
}

// loadWanted loads what reads that do not wait have missed.
func (r *Reader) loadWanted() {
	for {
		select {
		case i := <-r.wanted:
			r.load(r.ctx, i)
		case <-r.ctx.Done():
			return
		}
	}
}

// load asks for a span, unless that failed just now, and returns what is known. One does so at a time.
func (r *Reader) load(ctx context.Context, i int64) *span {
	var state *loadState
	select {
	case state = <-r.turn:
	case <-ctx.Done():
		return r.spans[i].Load()
	case <-r.ctx.Done():
		return nil
	}
	defer func() { r.turn <- state }()
	was := r.spans[i].Load()
	if !was.old() || r.never.Load() || time.Now().Before(state.next) || r.ctx.Err() != nil {
		return was
	}
	s, err := r.ask(ctx, state, i)
	switch {
	case err == nil:
		state.pause = 0
		r.keep(state, i, s)
		return s
	case errors.Is(err, ErrNever):
		r.never.Store(true)
		r.log.Info("the image is read through the server only", "error", err)
	case ctx.Err() == nil:
		state.pause = min(max(2*state.pause, leastPause), mostPause)
		state.next = time.Now().Add(state.pause)
		r.log.Debug("where the image lies on the devices could not be asked", "error", err, "next_in", state.pause)
	}
	return was
}

func (r *Reader) ask(ctx context.Context, state *loadState, i int64) (*span, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	off := i * SpanBlocks * BlockSize
	blocks := int(min(SpanBlocks, (r.size-off)/BlockSize))
	if blocks == 0 {
		return &span{v: state.v}, nil // nothing but a piece of a block
	}
	a, err := r.locate(ctx, off, blocks)
	if err != nil {
		return nil, err
	}
	rows := decodeRows(a.Rows)
	if len(rows) != blocks {
		return nil, fmt.Errorf("%w: asked for %d blocks, the server tells of %d", ErrNever, blocks, len(rows))
	}
	if state.v == nil || !state.v.is(a) {
		v, err := openView(a)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNever, err)
		}
		if state.v != nil {
			state.v.close()
		}
		state.v = v
	}
	return &span{v: state.v, rows: rows}, nil
}

// keep remembers a span, and forgets the oldest one where there are too many.
func (r *Reader) keep(state *loadState, i int64, s *span) {
	if r.spans[i].Swap(s) != nil {
		return
	}
	if len(state.loaded) == maxSpans {
		r.spans[state.loaded[0]].Store(nil)
		state.loaded = append(state.loaded[:0], state.loaded[1:]...)
	}
	state.loaded = append(state.loaded, i)
}
