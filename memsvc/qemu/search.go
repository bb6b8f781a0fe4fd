package qemu

import (
	"context"
	"sync"
)

// search looks for free pages beside a transfer. It owns one goroutine, from start to stop.
type search struct {
	run    func() (int64, error)
	cancel context.CancelFunc
	wg     sync.WaitGroup
	done   chan struct{} // closed when all is known that ever will be

	found int64 // pages; after stop
	err   error
}

// newSearch prepares the search of the shared file, whose free pages join zero.
func (m *mover) newSearch(ctx context.Context, zero *PageSet) *search {
	ctx, cancel := context.WithCancel(ctx)
	s := &search{cancel: cancel, done: make(chan struct{})}
	s.run = func() (found int64, err error) {
		if m.o.FreePages == nil {
			return 0, nil
		}
		b := m.ram.shared
		err = m.o.FreePages(ctx, func(off, n int64) {
			// Only whole pages within the file.
			from, to := (max(0, off)+PageSize-1)/PageSize, min(off+n, b.Size)/PageSize
			if from < to {
				zero.AddRange(b.Offset/PageSize+from, b.Offset/PageSize+to)
				found += to - from
			}
		})
		return found, err
	}
	return s
}

func (s *search) start() {
	s.wg.Go(func() {
		s.found, s.err = s.run()
		close(s.done)
	})
}

// stop ends the search, if it was started, and waits for that.
func (s *search) stop() {
	s.cancel()
	s.wg.Wait()
}
