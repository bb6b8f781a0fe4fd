package nbd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

// TestConnectionLimit fills a server with connections. Those over the limit are turned away, and there is room
// again when one ends.
func TestConnectionLimit(t *testing.T) {
	r := newRig(t, func(c *Config, _ *shelf) { c.MaxConnections = 2 })
	a, b := r.enter(t, simple, "disk"), r.enter(t, simple, "disk")
	r.dial(t).closed()
	if n := r.Stats().Refused; n != 1 {
		t.Errorf("%d connections refused", n)
	}
	a.disconnect()
	eventually(t, "room", func() bool { return len(r.Connections()) == 1 })
	r.enter(t, simple, "disk").disconnect()
	b.disconnect()
}

// TestRefusalsDoNotFillTheLog has a client that connects again and again: what the log says of it is bounded by time, not
// by how fast the client is.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	const times = 200
	var log bytes.Buffer
	r := newRig(t, func(c *Config, _ *shelf) {
		c.MaxConnections = 2
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	begin := time.Now()
	for range times {
		c := r.dial(t)
		c.greet(0)
		c.write(make([]byte, 16)) // no option begins so
		c.closed()
		eventually(t, "the end of the connection", func() bool { return len(r.Connections()) == 0 })
	}
	a, b := r.enter(t, simple, "disk"), r.enter(t, simple, "disk")
	for range times {
		r.dial(t).closed()
	}
	most := int(time.Since(begin)/time.Second) + 1
	a.disconnect()
	b.disconnect()
	if err := r.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.Refused != times || s.BadHandshakes != times {
		t.Errorf("%d connections refused, %d bad handshakes", s.Refused, s.BadHandshakes)
	}
	for _, msg := range []string{"connection refused", "negotiation failed"} {
		if n := strings.Count(log.String(), msg); n < 1 || n > most {
			t.Errorf("%d lines about %q in %d s", n, msg, most)
		}
	}
}

// TestSilentNegotiation has clients that stop in the middle of the negotiation. They are dropped.
func TestSilentNegotiation(t *testing.T) {
	// Long enough for what they do say, even if nothing runs them for a while.
	r := newRig(t, func(c *Config, _ *shelf) { c.HandshakeTimeout = time.Second })
	nothing, half := r.dial(t), r.dial(t)
	half.greet(0)
	half.write(option(nbdproto.OptInfo, infoData("disk"))[:20]) // half an option
	nothing.expectDrop(18)
	half.expectDrop(0)
}

// TestSilentClients has clients that stop in the middle of a request. They are dropped; one that is only idle
// is not.
func TestSilentClients(t *testing.T) {
	r := newRig(t, func(c *Config, _ *shelf) { c.StallTimeout = 500 * time.Millisecond })
	idle := r.enter(t, structured, "disk")
	idle.ok(req{cmd: nbdproto.CmdRead, n: 4096})
	var silent []*client
	for _, part := range [][]byte{
		req{cmd: nbdproto.CmdRead, n: 4096}.bytes(structured)[:27],
		req{cmd: nbdproto.CmdWrite, data: pattern(4096, 0)}.bytes(structured)[:200],
		req{cmd: nbdproto.CmdWrite, data: pattern(1<<20, 0)}.bytes(structured)[:200<<10],
	} {
		c := r.enter(t, structured, "disk")
		c.write(part)
		silent = append(silent, c)
	}
	for _, c := range silent {
		c.expectDrop(0)
	}
	if n := r.Stats().Stalled; n != 3 {
		t.Errorf("%d stalled clients counted", n)
	}
	idle.ok(req{cmd: nbdproto.CmdRead, n: 4096})
	idle.disconnect()
}

// expectDrop reads what the server still says, and waits for the end.
func (c *client) expectDrop(n int) {
	c.t.Helper()
	c.read(n)
	c.closed()
}

// TestSlowSender sends a request more slowly than the stall timeout, but gets ahead all the time.
func TestSlowSender(t *testing.T) {
	const parts = 20
	stall := time.Second
	r := newRig(t, func(c *Config, _ *shelf) { c.StallTimeout = stall })
	c := r.enter(t, structured, "disk")
	x := req{cmd: nbdproto.CmdWrite, data: pattern(parts*2*minProgress, 0)}
	p := x.bytes(structured)
	for len(p) > 0 {
		n := min(len(p), 2*minProgress)
		c.write(p[:n])
		p = p[n:]
		// Altogether longer than the timeout, and each part far shorter, for machines with other work to do.
		time.Sleep(stall * 3 / 2 / parts)
	}
	if a := c.answer(x); a.errno != 0 {
		t.Errorf("error %d", a.errno)
	}
}

// TestClientThatDoesNotRead sends requests and never reads a reply. Its memory is bounded, others are served
// meanwhile, and it is dropped.
func TestClientThatDoesNotRead(t *testing.T) {
	r := newRig(t, func(c *Config, s *shelf) {
		c.StallTimeout, c.MaxInFlight, c.MaxBufferBytes = 2*time.Second, 16, 8<<20
		s.disks["disk"].TryReads = 2
	})
	deaf := r.enter(t, structured, "disk")
	var reqs []byte
	for i := range uint64(200) {
		n := uint64(60 << 10)
		if i%3 == 0 {
			n = 1 << 20
		}
		reqs = append(reqs, req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagDF & -uint16(i&1), cookie: i, n: n}.bytes(structured)...)
	}
	fill := pattern(testSize, 9)
	deaf.ok(req{cmd: nbdproto.CmdWrite, data: fill})
	deaf.write(reqs)
	other := r.enter(t, structured, "disk")
	for range 50 {
		if a := other.ok(req{cmd: nbdproto.CmdRead, n: 1 << 20}); len(a.data) != 1<<20 || a.data[77] != fill[77] {
			t.Fatal("wrong data")
		}
		if s := r.Stats(); s.BufferBytes > 8<<20 {
			t.Fatalf("%d bytes of payload memory", s.BufferBytes)
		}
		if c := r.Connections()[0]; c.InFlight > 16 {
			t.Fatalf("%d requests in flight", c.InFlight)
		}
	}
	eventually(t, "the deaf client to be dropped", func() bool { return r.Stats().Stalled == 1 })
	other.ok(req{cmd: nbdproto.CmdRead, n: 4096})
	other.disconnect()
}

// TestVanishingClients cuts connections while requests of every kind are in flight.
func TestVanishingClients(t *testing.T) {
	r := newRig(t, func(c *Config, s *shelf) { s.disks["disk"].TryReads = 2 })
	var reqs []byte
	for i := range uint64(64) {
		cmd := uint16(i % 8)
		x := req{cmd: cmd, cookie: i, n: 256 << 10}
		switch cmd {
		case nbdproto.CmdDisc:
			continue
		case nbdproto.CmdWrite:
			x.data = pattern(int(i)<<12, 0)
		case nbdproto.CmdFlush:
			x.n = 0
		}
		reqs = append(reqs, x.bytes(extended)...)
	}
	for i := range 40 {
		c := r.enter(t, extended, "disk", "base:allocation")
		// Nobody reads the replies, so that writing may come to a halt: then the client vanishes there.
		c.nc.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		c.nc.Write(reqs[:len(reqs)*(i+1)/40])
		c.nc.Close()
	}
	eventually(t, "the connections to end", func() bool { return len(r.Connections()) == 0 })
}

// gate is an export whose reads wait until they may go on.
type gate struct {
	Export
	entered chan struct{}
	open    chan struct{}
}

func (g *gate) TryReadAt([]byte, int64) (bool, error) { return false, nil }
func (g *gate) ReadAt(p []byte, off int64) error {
	g.entered <- struct{}{}
	<-g.open
	return g.Export.ReadAt(p, off)
}

// gated makes a rig whose exports wait at a gate.
func gated(t *testing.T, change func(*Config)) (*rig, *gate) {
	g := &gate{entered: make(chan struct{}, 1000), open: make(chan struct{})}
	return newRig(t, func(c *Config, s *shelf) {
		c.Catalog = catalogFunc(func(name string, cl Client) (Export, error) {
			e, err := s.Open(name, cl)
			return &gate{e, g.entered, g.open}, err
		})
		if change != nil {
			change(c)
		}
	}), g
}

type catalogFunc func(string, Client) (Export, error)

func (catalogFunc) List() []ExportInfo                           { return nil }
func (f catalogFunc) Open(name string, c Client) (Export, error) { return f(name, c) }

// TestOutOfOrder: a request that waits for the disk holds up no other.
func TestOutOfOrder(t *testing.T) {
	r, g := gated(t, nil)
	c := r.enter(t, structured, "disk")
	slow := req{cmd: nbdproto.CmdRead, cookie: 1, n: 4096}
	c.send(slow)
	<-g.entered
	for i := range uint64(10) {
		c.ok(req{cmd: nbdproto.CmdWrite, cookie: 10 + i, data: []byte("x")})
		c.ok(req{cmd: nbdproto.CmdFlush, cookie: 20 + i})
	}
	close(g.open)
	if a := c.answer(slow); a.errno != 0 {
		t.Errorf("error %d", a.errno)
	}
}

// writeGate is an export whose writes wait until they may go on, once it is shut.
type writeGate struct {
	Export
	shut    *atomic.Bool
	entered chan struct{}
	open    chan struct{}
}

func (g *writeGate) WriteBatch(offs []int64, data [][]byte, errs []error) {
	time.Sleep(2 * slowWrite)
	if g.shut.Load() {
		g.entered <- struct{}{}
		<-g.open
	}
	g.Export.WriteBatch(offs, data, errs)
}

// TestSlowWrites: when writes are slow, requests behind them do not wait for them.
func TestSlowWrites(t *testing.T) {
	for _, m := range modes {
		t.Run(m.String(), func(t *testing.T) { testSlowWrites(t, m) })
	}
}

func testSlowWrites(t *testing.T, m mode) {
	g := &writeGate{shut: new(atomic.Bool), entered: make(chan struct{}, 100), open: make(chan struct{})}
	r := newRig(t, func(c *Config, s *shelf) {
		c.Catalog = catalogFunc(func(name string, cl Client) (Export, error) {
			e, err := s.Open(name, cl)
			return &writeGate{e, g.shut, g.entered, g.open}, err
		})
	})
	c := r.enter(t, m, "disk")
	c.ok(req{cmd: nbdproto.CmdWrite, data: pattern(512, 0)}) // teaches the server that writes are slow
	g.shut.Store(true)
	var burst []byte
	var want []req
	for i := range uint64(8) {
		x := req{cmd: nbdproto.CmdWrite, cookie: 100 + i, flags: uint16(i&1) * nbdproto.CmdFlagFUA, off: 4096 * i, data: pattern(4096, byte(i))}
		want = append(want, x)
		burst = append(burst, x.bytes(m)...)
	}
	// The last write arrives in two parts: the first must survive the change of buffers.
	c.write(burst[:len(burst)-1000])
	<-g.entered
	c.write(burst[len(burst)-1000:])
	c.ok(req{cmd: nbdproto.CmdRead, cookie: 7, off: 1 << 20, n: 4096})
	close(g.open)
	got := map[uint64]bool{}
	for range want {
		k, err := c.chunk()
		if err != nil || k.errno != 0 || k.cookie < 100 || got[k.cookie] {
			t.Fatalf("%+v, %v", k, err)
		}
		got[k.cookie] = true
	}
	for _, x := range want {
		if a := c.ok(req{cmd: nbdproto.CmdRead, off: x.off, n: 4096}); string(a.data) != string(x.data) {
			t.Errorf("wrong data at %d", x.off)
		}
	}
	c.disconnect()
}

// TestInFlightLimit: beyond the limit requests wait in the socket.
func TestInFlightLimit(t *testing.T) {
	r, g := gated(t, func(c *Config) { c.MaxInFlight, c.Workers = 4, 2 })
	c := r.enter(t, simple, "disk")
	var all []byte
	for i := range uint64(20) {
		all = append(all, req{cmd: nbdproto.CmdRead, cookie: i, n: 4096}.bytes(simple)...)
	}
	c.write(all)
	<-g.entered
	<-g.entered
	eventually(t, "the limit", func() bool { return r.Connections()[0].InFlight == 4 })
	if len(g.entered) != 0 {
		t.Error("more workers than allowed")
	}
	close(g.open)
	c.read(20 * (nbdproto.SimpleReplySize + 4096))
	c.disconnect()
}

// TestShutdown stops a server with requests in flight: they are answered before the connection is closed.
func TestShutdown(t *testing.T) {
	r, g := gated(t, nil)
	c, idle := r.enter(t, structured, "disk"), r.enter(t, structured, "disk")
	negotiating := r.dial(t)
	negotiating.read(18)
	slow := req{cmd: nbdproto.CmdRead, cookie: 1, n: 4096}
	c.send(slow)
	<-g.entered
	done := make(chan error)
	go func() { done <- r.Shutdown(context.Background()) }()
	idle.closed()
	negotiating.closed()
	select {
	case <-done:
		t.Fatal("Shutdown did not wait")
	default:
	}
	close(g.open)
	if a := c.answer(slow); a.errno != 0 {
		t.Errorf("error %d", a.errno)
	}
	c.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if nc, err := net.Dial("unix", r.path); err == nil {
		t.Error("the server still listens")
		nc.Close()
	}
}

// TestShutdownOutOfTime: what has not begun when the time is up is answered with ESHUTDOWN.
func TestShutdownOutOfTime(t *testing.T) {
	r, g := gated(t, func(c *Config) { c.Workers = 1 })
	c := r.enter(t, structured, "disk")
	c.send(req{cmd: nbdproto.CmdRead, cookie: 1, n: 4096})
	<-g.entered
	c.send(req{cmd: nbdproto.CmdRead, cookie: 2, n: 4096})
	c.send(req{cmd: nbdproto.CmdFlush, cookie: 3})
	eventually(t, "the requests to be received", func() bool { return r.Connections()[0].InFlight == 3 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	done := make(chan error)
	go func() { done <- r.Shutdown(ctx) }()
	eventually(t, "the end of time", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for c := range r.conns {
			return c.jobs.aborted.Load()
		}
		return false
	})
	close(g.open)
	want := map[uint64]uint32{1: 0, 2: nbdproto.EShutdown, 3: nbdproto.EShutdown}
	for len(want) > 0 {
		k, err := c.chunk()
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := want[k.cookie]; !ok || k.errno != e {
			t.Errorf("request %d: error %d, want %d", k.cookie, k.errno, e)
		}
		delete(want, k.cookie)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestServeEndsWithContext(t *testing.T) {
	r := newRig(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, l) }()
	c := r.enter(t, simple, "disk")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.ok(req{cmd: nbdproto.CmdRead, n: 1}) // other listeners and connections go on
	if err := r.Serve(context.Background(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("serving a closed listener: %v", err)
	}
}

// TestIdleMemory: connections that wait hold no buffers.
func TestIdleMemory(t *testing.T) {
	r := newRig(t, nil)
	const n = 200
	for range n {
		c := r.enter(t, structured, "disk")
		c.ok(req{cmd: nbdproto.CmdWrite, data: pattern(4096, 0)})
		c.ok(req{cmd: nbdproto.CmdRead, n: 64 << 10})
	}
	heap := func() uint64 {
		var ms runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&ms)
		return ms.HeapAlloc
	}
	disk := uint64(1 << 20) // one chunk of the disk itself
	eventually(t, "the memory of idle connections", func() bool { return heap() < disk+n*(32<<10) })
}

// TestConcurrentClients has many connections at work while some come and go, for the race detector.
func TestConcurrentClients(t *testing.T) {
	r := newRig(t, func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 3 })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 5 {
				c := r.dial(t)
				c.enter(modes[i%3], "disk")
				base := uint64(i) << 18
				p := pattern(100<<10, byte(i))
				c.send(req{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, off: base, data: p})
				c.answer(req{cmd: nbdproto.CmdWrite, off: base})
				a := c.do(req{cmd: nbdproto.CmdRead, off: base, n: uint64(len(p))})
				if string(a.data) != string(p) {
					t.Error("wrong data")
				}
				r.Connections()
				c.disconnect()
			}
		}()
	}
	wg.Wait()
}
