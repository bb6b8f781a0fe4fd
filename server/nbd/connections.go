package nbd

import (
	"slices"
	"time"
)

// Connection is one connection as it is now.
type Connection struct {
	ID            uint64
	Client        Client
	Export        string // "" while negotiating
	ReadOnly      bool
	Since         time.Time
	InFlight      int   // requests that wait for workers, or whose replies wait for the client
	InFlightBytes int64 // payload memory of those
	BytesIn       uint64
	BytesOut      uint64
}

// Connections returns the open connections, oldest first.
func (s *Server) Connections() []Connection {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	list := make([]Connection, 0, len(conns))
	for _, c := range conns {
		list = append(list, c.snapshot())
	}
	slices.SortFunc(list, func(a, b Connection) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list
}

func (c *conn) snapshot() Connection {
	info := Connection{
		ID:       c.id,
		Since:    c.since,
		BytesIn:  c.recv.total.Load(),
		BytesOut: c.send.total.Load(),
	}
	if p := c.public.Load(); p != nil {
		info.Client, info.Export, info.ReadOnly = p.client, p.export, p.readOnly
	}
	info.InFlight, info.InFlightBytes = c.jobs.inFlight()
	return info
}

// publicState is what a snapshot may see of a connection without stopping it. It is replaced, never changed.
type publicState struct {
	client   Client
	export   string
	readOnly bool
}
