package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lsad/internal/loglimit"
)

// Server serves the exports of one catalog on any number of listeners.
type Server struct {
	cfg      Config
	contexts []metaContext
	buffers  budget
	stats    serverStats
	logs     logLimits

	mu        sync.Mutex
	stopping  bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	lastID    uint64
	wg        sync.WaitGroup // connections and Serve calls
}

// logLimits are of what a client can have logged without ever getting an export, as often as it can connect.
type logLimits struct {
	refused, negotiation loglimit.Limiter
}

// New returns a server that is ready for Serve.
func New(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	return &Server{
		cfg:       cfg,
		contexts:  metaContexts,
		buffers:   budget{limit: cfg.MaxBufferBytes},
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}, nil
}

// Serve accepts connections from l, which it closes in the end. It returns nil once ctx is cancelled or
// Shutdown was called, and the error when l fails. Cancelling ctx leaves the connections alone: they end
// with their clients or with Shutdown. It may be called for several listeners at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.addListener(l) {
		l.Close()
		return nil
	}
	defer s.wg.Done()
	defer s.removeListener(l)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	return s.accept(ctx, l)
}

func (s *Server) accept(ctx context.Context, l net.Listener) error {
	delay := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			delay = 0
			s.start(nc)
			continue
		}
		if ctx.Err() != nil || s.isStopping() {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("nbd: listener %v: %w", l.Addr(), err)
		}
		// What else fails is a matter of resources (descriptors, memory) or of a connection that is gone
		// already: serving goes on.
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.cfg.Logger.Warn("nbd: accepting a connection failed", "listener", l.Addr(), "err", err, "retry_in", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

// start gives nc a goroutine of its own, or closes it where the limit is reached.
func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	refused := ""
	switch {
	case s.stopping:
		refused = "shutting down"
	case len(s.conns) >= s.cfg.MaxConnections:
		refused = "too many connections"
	default:
		s.lastID++
		c.id = s.lastID
		s.conns[c] = struct{}{}
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if refused != "" {
		s.stats.refused.Add(1)
		if more, ok := s.logs.refused.Allow(time.Now()); ok {
			s.cfg.Logger.Warn("nbd: connection refused", "client", c.client.Addr, "reason", refused, "limit", s.cfg.MaxConnections, "more_since_last", more)
		}
		nc.Close()
		return
	}
	s.stats.accepted.Add(1)
	go func() {
		defer s.wg.Done()
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// abortGrace is how long clients have to take their last replies when a shutdown is out of time.
const abortGrace = time.Second

// Shutdown stops accepting, lets every connection finish the requests it has received, closes them and
// waits for every goroutine of the server. When ctx ends first, requests that have not begun are answered
// with ESHUTDOWN, the connections are closed as they are, and Shutdown returns the error of ctx once what
// had begun is done.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for l := range s.listeners {
		l.Close()
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
	}

	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, c := range conns {
		c.abort()
	}
	select {
	case <-done:
	case <-time.After(abortGrace):
		for _, c := range conns {
			c.sock.Close()
		}
		<-done
	}
	return fmt.Errorf("nbd: shutdown: %w", ctx.Err())
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) removeListener(l net.Listener) {
	l.Close()
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// serverStats counts since the server was made.
type serverStats struct {
	accepted, refused, badHandshakes, stalled atomic.Uint64
}

// Stats counts what became of connections since the server was made.
type Stats struct {
	Accepted      uint64 // connections begun
	Refused       uint64 // connections closed at once, over the limit
	BadHandshakes uint64 // connections that broke the protocol before they had an export
	Stalled       uint64 // connections dropped because the client did not get ahead
	BufferBytes   int64  // payload memory in use
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Accepted:      s.stats.accepted.Load(),
		Refused:       s.stats.refused.Load(),
		BadHandshakes: s.stats.badHandshakes.Load(),
		Stalled:       s.stats.stalled.Load(),
		BufferBytes:   s.buffers.used.Load(),
	}
}
