package main

import (
	"context"
	"net"
	"os"
	"sync"

	"lsad/internal/config"
)

// hookSockets are those of a hook, for an end in which nobody else removes them.
type hookSockets struct {
	mu    sync.Mutex
	paths []string
}

// listen is listen at a path.
func (s *hookSockets) listen(ctx context.Context, what, path string, gid int) (net.Listener, error) {
	s.mu.Lock() // so that there is none of which remove does not know
	defer s.mu.Unlock()
	l, err := listen(ctx, what, config.Addr{Network: "unix", Address: path}, gid)
	if err == nil {
		s.paths = append(s.paths, path)
	}
	return l, err
}

// remove removes them.
func (s *hookSockets) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range s.paths {
		_ = os.Remove(path) // it is a stale socket at worst, which the next one replaces
	}
}
