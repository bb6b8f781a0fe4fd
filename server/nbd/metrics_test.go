package nbd

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

// recorder adds up what it is told.
type recorder struct {
	n, bytes, errors [NumOps]atomic.Int64
	calls            atomic.Int64
}

func (m *recorder) Export(string) Recorder { return m }
func (m *recorder) Record(op Op, n int, bytes int64, errs int, d time.Duration) {
	m.calls.Add(1)
	m.n[op].Add(int64(n))
	m.bytes[op].Add(bytes)
	m.errors[op].Add(int64(errs))
	if d <= 0 || d > testDeadline {
		panic(d)
	}
}

func TestMetrics(t *testing.T) {
	var rec recorder
	r := newRig(t, func(c *Config, s *shelf) {
		c.Metrics = &rec
		s.disks["disk"].Fail = func(op string, off, _ int64) error {
			if op == "read" && off == 8192 {
				return syscall.EIO
			}
			return nil
		}
	})
	c := r.enter(t, structured, "disk", "base:allocation")
	var burst []byte
	for range 16 {
		burst = append(burst, req{cmd: nbdproto.CmdWrite, data: pattern(512, 0)}.bytes(structured)...)
	}
	c.write(burst)
	for range 16 {
		c.answer(req{cmd: nbdproto.CmdWrite})
	}
	if n := rec.calls.Load(); n > 4 {
		t.Errorf("%d calls for 16 writes that came together", n)
	}
	c.ok(req{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, data: pattern(100<<10, 0)})
	c.ok(req{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, data: pattern(1<<10, 0)})
	c.ok(req{cmd: nbdproto.CmdRead, n: 4096})
	c.do(req{cmd: nbdproto.CmdRead, off: 8192, n: 4096})
	c.do(req{cmd: nbdproto.CmdRead, off: testSize, n: 1})
	c.ok(req{cmd: nbdproto.CmdFlush})
	c.ok(req{cmd: nbdproto.CmdTrim, n: 8192})
	c.ok(req{cmd: nbdproto.CmdWriteZeroes, n: 4096})
	c.ok(req{cmd: nbdproto.CmdCache, n: 4096})
	c.ok(req{cmd: nbdproto.CmdBlockStatus, n: 4096})
	c.disconnect()
	eventually(t, "the end", func() bool { return len(r.Connections()) == 0 })
	for op, want := range map[Op][3]int64{
		OpRead: {3, 4096, 2}, OpWrite: {18, 16*512 + 101<<10, 0}, OpFlush: {1, 0, 0}, OpTrim: {1, 8192, 0},
		OpWriteZeroes: {1, 4096, 0}, OpCache: {1, 4096, 0}, OpBlockStatus: {1, 4096, 0},
	} {
		if got := [3]int64{rec.n[op].Load(), rec.bytes[op].Load(), rec.errors[op].Load()}; got != want {
			t.Errorf("%v: count, bytes, errors %v, want %v", op, got, want)
		}
	}
}

func TestConnections(t *testing.T) {
	r := newRig(t, nil)
	if got := r.Connections(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	c := r.enter(t, simple, "rom")
	c.ok(req{cmd: nbdproto.CmdRead, n: 100})
	var got Connection
	eventually(t, "the counters", func() bool { got = r.Connections()[0]; return got.BytesOut == nbdproto.SimpleReplySize+100 })
	if got.Export != "rom" || !got.ReadOnly || got.BytesIn != nbdproto.RequestSize || got.Since.IsZero() || got.InFlight != 0 {
		t.Errorf("%+v", got)
	}
	if got.Client.Addr == "" || got.Client.TLS {
		t.Errorf("client %+v", got.Client)
	}
}
