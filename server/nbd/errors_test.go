package nbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

// TestOpenErrors checks what a client hears when an export cannot be opened.
func TestOpenErrors(t *testing.T) {
	var cause error
	r := newRig(t, func(c *Config, _ *shelf) {
		c.Catalog = catalogFunc(func(string, Client) (Export, error) { return nil, cause })
	})
	for _, tc := range []struct {
		err  error
		want uint32
	}{
		{fmt.Errorf("wrapped: %w", ErrUnknownExport), nbdproto.RepErrUnknown},
		{syscall.EPERM, nbdproto.RepErrPolicy},
		{syscall.EACCES, nbdproto.RepErrPolicy},
		{fmt.Errorf("closing: %w", syscall.ESHUTDOWN), nbdproto.RepErrShutdown},
		{errors.New("cannot read the map"), nbdproto.RepErrUnknown},
	} {
		cause = tc.err
		c := r.dial(t)
		c.greet(nbdproto.FlagFixedNewstyle)
		c.ack(nbdproto.OptStructuredReply, nil)
		for opt, data := range map[uint32][]byte{
			nbdproto.OptInfo: infoData("x"), nbdproto.OptGo: infoData("x"), nbdproto.OptSetMetaContext: metaData("x", "base:allocation"),
		} {
			if rep := c.option(opt, data); rep[0].typ != tc.want || len(rep[0].data) == 0 {
				t.Errorf("%v, option %d: %#x %q", tc.err, opt, rep[0].typ, rep[0].data)
			}
		}
		c.ack(nbdproto.OptAbort, nil)
		c.closed()
	}
}

// TestErrorsWithoutMemory has reads fail that are sent piece by piece. Structured replies can tell of an error
// anywhere; with simple ones there is no way to, once the data have begun, but to hang up.
func TestErrorsWithoutMemory(t *testing.T) {
	const bad = 1 << 20
	scant := func(c *Config, s *shelf) {
		c.MaxBufferBytes = 1
		d := s.disks["disk"]
		d.TryReads = 1
		d.Fail = func(op string, off, n int64) error {
			if off <= bad && bad < off+n && op != "extents" && op != "zero" {
				return syscall.EIO
			}
			return nil
		}
	}
	forModes(t, scant, func(t *testing.T, r *rig, m mode) {
		c := r.enter(t, m, "disk")
		for _, x := range []req{
			{cmd: nbdproto.CmdRead, off: bad, n: 512}, {cmd: nbdproto.CmdRead, off: bad, n: 1 << 20},
			{cmd: nbdproto.CmdWrite, off: bad, data: pattern(512, 0)}, {cmd: nbdproto.CmdWrite, off: bad - 1<<19, data: pattern(1<<20, 0)},
			{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, off: bad - 1<<19, data: pattern(1<<20, 0)},
		} {
			if a := c.do(x); a.errno != nbdproto.EIO {
				t.Errorf("command %d at %d: error %d", x.cmd, x.off, a.errno)
			}
		}
		c.ok(req{cmd: nbdproto.CmdWriteZeroes, n: testSize})
		c.ok(req{cmd: nbdproto.CmdCache, n: testSize}) // a hint, ignored
		late := req{cmd: nbdproto.CmdRead, n: bad + 1}
		if m != simple {
			if a := c.do(late); a.errno != nbdproto.EIO {
				t.Errorf("late error: %d", a.errno)
			}
			if a := c.do(req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagDF, n: bad}); a.errno != nbdproto.EOverflow {
				t.Errorf("long read with DF: error %d", a.errno)
			}
			c.ok(req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagDF, n: 65536})
			c.disconnect()
			return
		}
		c.send(late)
		k, err := c.chunk()
		if err != nil || k.errno != 0 {
			t.Fatalf("%+v, %v", k, err)
		}
		c.read(bad - bad%inlineMax) // whole pieces come before the end
		c.closed()
	})
}

// TestErrorOfASlowWrite checks the replies of a batch that a worker writes.
func TestErrorOfASlowWrite(t *testing.T) {
	forModes(t, func(_ *Config, s *shelf) {
		s.disks["disk"].Fail = func(op string, off, _ int64) error {
			switch {
			case op != "write":
			case off == 4096:
				return syscall.ENOSPC
			default:
				time.Sleep(2 * slowWrite)
			}
			return nil
		}
	}, func(t *testing.T, r *rig, m mode) {
		c := r.enter(t, m, "disk")
		c.ok(req{cmd: nbdproto.CmdWrite, data: pattern(512, 0)})
		var burst []byte
		for i := range uint64(4) {
			x := req{cmd: nbdproto.CmdWrite, cookie: i, off: i * 4096, data: pattern(512, 0)}
			if i == 2 {
				x.flags = nbdproto.CmdFlagFUA
			}
			burst = append(burst, x.bytes(m)...)
		}
		c.write(burst)
		for range 4 {
			k, err := c.chunk()
			if err != nil || (k.errno == nbdproto.ENoSpc) != (k.cookie == 1) {
				t.Errorf("%+v, %v", k, err)
			}
		}
		c.disconnect()
	})
}

// TestLongQueue lets many requests wait for one worker.
func TestLongQueue(t *testing.T) {
	r, g := gated(t, func(c *Config) { c.Workers = 1 })
	c := r.enter(t, simple, "disk")
	var all []byte
	const n = 250
	for i := range uint64(n) {
		all = append(all, req{cmd: nbdproto.CmdRead, cookie: i, n: 512}.bytes(simple)...)
	}
	c.write(all)
	eventually(t, "the queue", func() bool { return r.Connections()[0].InFlight == n })
	close(g.open)
	for i := range uint64(n) {
		c.answer(req{cmd: nbdproto.CmdRead, cookie: i, n: 512}) // one worker keeps the order
	}
	c.disconnect()
}

// TestShutdownTCP stops a server while a client's requests come in: what it was answered must reach it, though the
// kernel would rather reset a connection with unread requests in it.
func TestShutdownTCP(t *testing.T) {
	r, g := gated(t, nil)
	c := r.dialTCP(t)
	c.enter(simple, "disk")
	c.send(req{cmd: nbdproto.CmdRead, cookie: 1, n: 4096})
	<-g.entered
	done := make(chan error)
	go func() { done <- r.Shutdown(context.Background()) }()
	eventually(t, "the shutdown", r.isStopping)
	eventually(t, "the reader to stop", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for c := range r.conns {
			return c.draining.Load()
		}
		return false
	})
	for i := range uint64(10) {
		c.send(req{cmd: nbdproto.CmdRead, cookie: 100 + i, n: 4096}) // too late
	}
	close(g.open)
	for answered := false; !answered; { // one of the others may have slipped in
		k, err := c.chunk()
		if err != nil || k.errno != 0 {
			t.Fatalf("%+v, %v", k, err)
		}
		c.read(4096)
		answered = k.cookie == 1
	}
	c.nc.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestParseTLSMode(t *testing.T) {
	for _, m := range []TLSMode{TLSOff, TLSAllow, TLSRequire} {
		if got, err := ParseTLSMode(m.String()); got != m || err != nil {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseTLSMode("maybe"); err == nil {
		t.Error("maybe was accepted")
	}
}
