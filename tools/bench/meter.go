package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// meter passes connections on from one unix socket to another, and counts. It owns its goroutines; close ends them.
type meter struct {
	sent atomic.Int64 // bytes from the side that connects

	listener net.Listener
	to       string
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
	closed   bool
}

func newMeter(at, to string) (*meter, error) {
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", at)
	if err != nil {
		return nil, err
	}
	m := &meter{listener: l, to: to}
	m.wg.Go(m.serve)
	return m, nil
}

func (m *meter) serve() {
	for {
		from, err := m.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("unix", m.to)
		if err != nil || !m.keep(from, to) {
			from.Close()
			continue
		}
		m.wg.Go(func() { m.pass(to, from, &m.sent) })
		m.wg.Go(func() { m.pass(from, to, new(atomic.Int64)) })
	}
}

// keep remembers connections to close, unless it is too late.
func (m *meter) keep(conns ...net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		for _, c := range conns {
			c.Close()
		}
		return false
	}
	m.conns = append(m.conns, conns...)
	return true
}

// pass copies one direction. When it ends the other one does too.
func (m *meter) pass(to, from net.Conn, count *atomic.Int64) {
	io.Copy(counted{to, count}, from) // how it ended is for the two ends to say
	to.Close()
	from.Close()
}

// counted counts what is written.
type counted struct {
	io.Writer
	count *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.count.Add(int64(n))
	return n, err
}

func (m *meter) close() {
	m.listener.Close()
	m.mu.Lock()
	m.closed = true
	for _, c := range m.conns {
		c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}
