package kvmhook

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"
)

// memSource is an image in memory whose reads a test may hold up or have fail.
type memSource struct {
	data []byte

	mu    sync.Mutex
	held  chan struct{}                   // reads wait until it is closed
	fail  func(off, n int64) error        // asked after that
	asked func(off, n int64, urgent bool) // told before
	bytes int64                           // read
	calls int
	wg    sync.WaitGroup
}

// content is what the image has in a page. Of 24 pages, the first 8 are a hole.
func content(page int) []byte {
	p := make([]byte, smallPage)
	if isHole(page) {
		return p
	}
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(page)<<20|uint64(i)|1<<62)
	}
	return p
}

func isHole(page int) bool { return page/8%3 == 0 }

func newMemSource(pages int) *memSource {
	s := &memSource{}
	for i := range pages {
		s.data = append(s.data, content(i)...)
	}
	return s
}

// reads is how often it was read, and how many bytes.
func (s *memSource) reads() (calls int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, s.bytes
}

func (s *memSource) Size() int64 { return int64(len(s.data)) }

func (s *memSource) Zeros(_ context.Context, fn func(off, n int64)) error {
	for i := 0; i < len(s.data)/smallPage; i++ {
		if isHole(i) {
			fn(int64(i)*smallPage, smallPage)
		}
	}
	return nil
}

func (s *memSource) read(ctx context.Context, p []byte, off int64, urgent bool) error {
	s.mu.Lock()
	held, fail, asked := s.held, s.fail, s.asked
	s.bytes += int64(len(p))
	s.calls++
	s.mu.Unlock()
	if asked != nil {
		asked(off, int64(len(p)), urgent)
	}
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail != nil {
		if err := fail(off, int64(len(p))); err != nil {
			return err
		}
	}
	if off < 0 || off+int64(len(p)) > s.Size() {
		return fmt.Errorf("%w: %d bytes at %d", ErrSource, len(p), off)
	}
	copy(p, s.data[off:])
	return nil
}

func (s *memSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.read(ctx, p, off, false)
}

func (s *memSource) Start(ctx context.Context, p []byte, off int64, then Completion) {
	s.wg.Go(func() { then.Done(s.read(ctx, p, off, true)) })
}

func (s *memSource) hold() (release func()) {
	c := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = c
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held == c {
			s.held = nil
			close(c)
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
