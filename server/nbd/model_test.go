package nbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

// TestModel sends random requests, many at a time, and holds every answer against a plain array of bytes.
// Requests in flight at the same time do not overlap, so that each has one right answer.
func TestModel(t *testing.T) {
	for _, v := range []struct {
		name   string
		change func(*Config, *shelf)
	}{
		{"plain", func(*Config, *shelf) {}},
		{"disk that waits", func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 2 }},
		{"no memory", func(c *Config, s *shelf) { c.MaxBufferBytes = 1; s.disks["disk"].TryReads = 2 }},
		{"some memory", func(c *Config, s *shelf) { c.MaxBufferBytes = 2 << 20; s.disks["disk"].TryReads = 1 }},
		{"slow writes", func(_ *Config, s *shelf) {
			s.disks["disk"].Fail = func(op string, off, _ int64) error {
				if op == "write" && off%3 == 0 {
					time.Sleep(2 * slowWrite)
				}
				return nil
			}
		}},
		{"few in flight", func(c *Config, s *shelf) { c.MaxInFlight, c.Workers = 3, 2; s.disks["disk"].TryReads = 1 }},
	} {
		t.Run(v.name, func(t *testing.T) {
			forModes(t, v.change, func(t *testing.T, r *rig, m mode) {
				testModel(t, r, r.enter(t, m, "disk", contextsFor(m)...))
			})
		})
	}
}

func contextsFor(m mode) []string {
	if m == simple {
		return nil
	}
	return []string{"base:allocation"}
}

func TestModelTLS(t *testing.T) {
	p := newPKI(t)
	r := newRig(t, p.use(t, TLSRequire))
	c := r.dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.startTLS(p.clientConfig(t, "client"))
	c.ack(nbdproto.OptStructuredReply, nil)
	c.mode = structured
	c.setMeta("disk", "base:allocation")
	c.goTo("disk")
	testModel(t, r, c)
}

func TestModelTCP(t *testing.T) {
	r := newRig(t, func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 3 })
	c := r.dialTCP(t)
	c.enter(extended, "disk", "base:allocation")
	testModel(t, r, c)
}

// flight is a request in flight and what must come of it.
type flight struct {
	req  req
	want []byte // of a read
	got  answer
}

type model struct {
	rng   *rand.Rand
	c     *client
	data  []byte
	dirty []bool // per block: was ever written, so that it may be no hole
	busy  map[uint64]*flight
	next  uint64
}

const modelDepth = 24

func modelRequests() int {
	switch {
	case os.Getenv("LSAD_SOAK") != "":
		return 8000
	case os.Getenv("LSAD_TEST") == "full":
		return 1500
	}
	return 150
}

func testModel(t *testing.T, r *rig, c *client) {
	seed := uint64(time.Now().UnixNano())
	m := &model{
		rng: rand.New(rand.NewPCG(seed, 1)), c: c,
		data: make([]byte, testSize), dirty: make([]bool, testSize/4096+1), busy: map[uint64]*flight{},
	}
	if err := m.run(modelRequests()); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	for off := 0; off < testSize; off += 1 << 20 { // the end result
		if a := c.ok(req{cmd: nbdproto.CmdRead, off: uint64(off), n: 1 << 20}); !bytes.Equal(a.data, m.data[off:off+1<<20]) {
			t.Fatalf("seed %d: wrong data in MiB %d at the end", seed, off>>20)
		}
	}
	c.disconnect()
	eventually(t, "the end of the connection", func() bool { return len(r.Connections()) == 0 })
}

func (m *model) run(n int) error {
	for n > 0 || len(m.busy) > 0 {
		var burst []byte
		for n > 0 && len(m.busy) < modelDepth {
			f := m.pick()
			if f == nil {
				break
			}
			m.busy[f.req.cookie] = f
			burst = append(burst, f.req.bytes(m.c.mode)...)
			n--
		}
		// Both sides may be full: what is sent must not wait for what is to be read.
		sent := make(chan error, 1)
		go func() {
			_, err := m.c.nc.Write(burst)
			sent <- err
		}()
		for range 1 + m.rng.IntN(8) {
			if len(m.busy) == 0 {
				break
			}
			if err := m.receive(); err != nil {
				return err
			}
		}
		for writing := true; writing; {
			select {
			case err := <-sent:
				if err != nil {
					return err
				}
				writing = false
			default:
				if len(m.busy) > 0 {
					if err := m.receive(); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// pick makes a random request, or nil if the range it chose is in use.
func (m *model) pick() *flight {
	x := req{cookie: m.next, off: uint64(m.rng.IntN(testSize))}
	n := 1 + m.rng.IntN([]int{700, 5000, 20000, 70000, 600000}[m.rng.IntN(5)])
	if m.rng.IntN(2) == 0 {
		x.off, n = x.off&^4095, (n+4095)&^4095
	}
	x.n = min(uint64(n), testSize-x.off)
	if m.rng.IntN(4) == 0 {
		x.flags = nbdproto.CmdFlagFUA
	}
	x.cmd = []uint16{nbdproto.CmdRead, nbdproto.CmdRead, nbdproto.CmdWrite, nbdproto.CmdWrite, nbdproto.CmdFlush, nbdproto.CmdTrim, nbdproto.CmdWriteZeroes, nbdproto.CmdCache, nbdproto.CmdBlockStatus}[m.rng.IntN(9)]
	if x.cmd == nbdproto.CmdBlockStatus && m.c.mode == simple {
		x.cmd = nbdproto.CmdRead
	}
	if x.cmd == nbdproto.CmdFlush {
		x.off, x.n = 0, 0
	} else if m.overlaps(x) {
		return nil
	}
	m.next++
	return m.prepare(x)
}

func (m *model) overlaps(x req) bool {
	for _, f := range m.busy {
		// Blocks, not bytes: writing a part of a block may change what is known of it.
		if x.off&^4095 < f.req.off+f.req.n && f.req.off&^4095 < x.off+x.n {
			return true
		}
	}
	return false
}

// prepare gives a request what it needs and changes the model as if it had been carried out.
func (m *model) prepare(x req) *flight {
	f := &flight{req: x}
	area := m.data[x.off : x.off+x.n]
	switch x.cmd {
	case nbdproto.CmdRead:
		if m.c.mode != simple && m.rng.IntN(4) == 0 {
			f.req.flags |= nbdproto.CmdFlagDF
			f.req.n = min(x.n, 65536) // what the server must be able to send in one piece
		}
		f.want = bytes.Clone(area[:f.req.n])
	case nbdproto.CmdWrite:
		f.req.data = make([]byte, x.n)
		if m.rng.IntN(8) > 0 { // else zeros
			for i := range f.req.data {
				f.req.data[i] = byte(m.rng.Uint32())
			}
		}
		copy(area, f.req.data)
		m.touch(x)
	case nbdproto.CmdTrim:
		// memexport makes zeros of whole blocks, as lsad does.
		first, last := (x.off+4095)/4096, (x.off+x.n)/4096
		if first < last {
			clear(m.data[first*4096 : last*4096])
		}
	case nbdproto.CmdWriteZeroes:
		if m.rng.IntN(2) == 0 {
			f.req.flags |= nbdproto.CmdFlagNoHole
		}
		clear(area)
		m.touch(x)
	case nbdproto.CmdBlockStatus:
		if m.rng.IntN(2) == 0 {
			f.req.flags |= nbdproto.CmdFlagReqOne
		}
		f.want = area
	}
	return f
}

func (m *model) touch(x req) {
	for b := x.off / 4096; b*4096 < x.off+x.n; b++ {
		m.dirty[b] = true
	}
}

// receive takes in one message.
func (m *model) receive() error {
	k, err := m.c.chunk()
	if err != nil {
		return err
	}
	f := m.busy[k.cookie]
	if f == nil {
		return fmt.Errorf("reply with cookie %d, which is not in flight", k.cookie)
	}
	if err := f.got.gather(m.c, f.req, k); err != nil {
		return err
	}
	if !k.done() {
		return nil
	}
	delete(m.busy, k.cookie)
	if err := m.check(f); err != nil {
		return fmt.Errorf("command %d, flags %#x, %d bytes at %d: %w", f.req.cmd, f.req.flags, f.req.n, f.req.off, err)
	}
	return nil
}

func (m *model) check(f *flight) error {
	if f.got.errno != 0 {
		return fmt.Errorf("error %d %q", f.got.errno, f.got.text)
	}
	switch f.req.cmd {
	case nbdproto.CmdRead:
		if !bytes.Equal(f.got.data, f.want) {
			return fmt.Errorf("wrong data")
		}
		if f.req.flags&nbdproto.CmdFlagDF != 0 && (f.got.chunks != 1 || f.got.holes != 0) {
			return fmt.Errorf("%d chunks and %d holes with DF", f.got.chunks, f.got.holes)
		}
	case nbdproto.CmdBlockStatus:
		return m.checkStatus(f)
	}
	return nil
}

// checkStatus checks that what is told to be zero is, and that holes are where nothing was written.
func (m *model) checkStatus(f *flight) error {
	list := f.got.status[1]
	if len(f.got.status) != 1 || len(list) == 0 {
		return fmt.Errorf("status %v", f.got.status)
	}
	if f.req.flags&nbdproto.CmdFlagReqOne != 0 && len(list) != 1 {
		return fmt.Errorf("%d ranges with REQ_ONE", len(list))
	}
	at := uint64(0)
	for i, e := range list {
		if e.n == 0 || at+e.n > f.req.n {
			return fmt.Errorf("range %d of %d bytes at %d", i, e.n, at)
		}
		if i > 0 && e.status == list[i-1].status {
			return fmt.Errorf("ranges %d and %d are one", i-1, i)
		}
		if e.status&nbdproto.StateZero != 0 && len(bytes.TrimLeft(f.want[at:at+e.n], "\x00")) != 0 {
			return fmt.Errorf("range %d is not zero", i)
		}
		at += e.n
	}
	return nil
}
