package guestmem

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// parallel calls f(0) to f(n-1) from as many goroutines as there are processors
// and waits for them. After an error, or when ctx ends, no further call begins.
func parallel(ctx context.Context, n int, f func(i int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n)
	errs := make([]error, workers)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			behave(ctx)
			errs[w] = guarded(func() error {
				for !failed.Load() {
					i := int(next.Add(1)) - 1
					if i >= n {
						return nil
					}
					if err := errors.Join(ctx.Err(), f(i)); err != nil {
						return err
					}
				}
				return nil
			})
			if errs[w] != nil {
				failed.Store(true)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// guarded calls f and turns a memory fault in it into ErrFault. Guest memory is
// a mapping of a file that others can shorten, and a page beyond its end kills
// the process that reads it, unless it is prepared.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // what the runtime panics with on a fault
			err = fmt.Errorf("%w: was its file shortened? (fault at %#x)", ErrFault, r.Addr())
		default:
			panic(r)
		}
	}()
	return f()
}

// scanChunk is how much memory a worker takes at a time, in bytes.
const scanChunk = 16 << 20

// eachChunk calls visit, from several goroutines, for all parts of memory that
// are not holes, at most scanChunk long each: with the range, the number of the
// range's first page and the part's place in the range.
func eachChunk(ctx context.Context, m *Memory, visit func(r *Range, first uint64, part Extent)) error {
	type chunk struct {
		r    int
		part Extent
	}
	var chunks []chunk
	for i, r := range m.ranges {
		for _, e := range r.extents() {
			for off := uint64(0); off < e.Len; off += scanChunk {
				chunks = append(chunks, chunk{i, Extent{e.Off + off, min(scanChunk, e.Len-off)}})
			}
		}
	}
	return parallel(ctx, len(chunks), func(i int) error {
		c := chunks[i]
		visit(&m.ranges[c.r], m.first[c.r], c.part)
		return nil
	})
}
