package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"lsad/internal/nbdproto"
)

// forModes runs a test with each kind of headers, on a server of its own.
func forModes(t *testing.T, change func(*Config, *shelf), test func(t *testing.T, r *rig, m mode)) {
	for _, m := range modes {
		t.Run(m.String(), func(t *testing.T) { test(t, newRig(t, change), m) })
	}
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7) ^ byte(i>>8) ^ seed | 1
	}
	return p
}

// TestWire holds whole replies against bytes written out by hand from the specification.
func TestWire(t *testing.T) {
	const cookie = "\x11\x22\x33\x44\x55\x66\x77\x88"
	read := req{cmd: nbdproto.CmdRead, cookie: 0x1122334455667788, off: 4096, n: 4}
	write := req{cmd: nbdproto.CmdWrite, cookie: 0x1122334455667788, off: 4096, data: []byte("data")}
	beyond := req{cmd: nbdproto.CmdTrim, cookie: 0x1122334455667788, off: testSize, n: 1}
	status := req{cmd: nbdproto.CmdBlockStatus, cookie: 0x1122334455667788, off: 4096, n: 8192}
	hole := read
	hole.off, hole.n = 8192, 512
	text := errReadBounds.text
	n16 := func(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
	n32 := func(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	n64 := func(n int) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	const s, st, ex = "\x67\x44\x66\x98", "\x66\x8e\x33\xef", "\x6e\x8a\x27\x8c"
	for m, exchange := range map[mode][]struct {
		r    req
		want string
	}{
		simple: {
			{write, s + n32(0) + cookie},
			{read, s + n32(0) + cookie + "data"},
			{hole, s + n32(0) + cookie + strings.Repeat("\x00", 512)},
			{beyond, s + n32(22) + cookie},
		},
		structured: {
			{write, s + n32(0) + cookie},
			{read, st + "\x00\x01\x00\x01" + cookie + n32(12) + n64(4096) + "data"},
			{hole, st + "\x00\x01\x00\x02" + cookie + n32(12) + n64(8192) + n32(512)},
			{beyond, st + "\x00\x01\x80\x01" + cookie + n32(6+len(text)) + n32(22) + n16(len(text)) + text},
			{status, st + "\x00\x01\x00\x05" + cookie + n32(20) + n32(1) + n32(4096) + n32(0) + n32(4096) + n32(3)},
		},
		extended: {
			{write, ex + "\x00\x01\x00\x00" + cookie + n64(4096) + n64(0)},
			{read, ex + "\x00\x01\x00\x01" + cookie + n64(4096) + n64(12) + n64(4096) + "data"},
			{hole, ex + "\x00\x01\x00\x02" + cookie + n64(8192) + n64(12) + n64(8192) + n32(512)},
			{beyond, ex + "\x00\x01\x80\x01" + cookie + n64(testSize) + n64(6+len(text)) + n32(22) + n16(len(text)) + text},
			{status, ex + "\x00\x01\x00\x06" + cookie + n64(4096) + n64(40) + n32(1) + n32(2) + n64(4096) + n64(0) + n64(4096) + n64(3)},
		},
	} {
		c := newRig(t, nil).dial(t)
		if m == simple {
			c.enter(m, "disk")
		} else {
			c.enter(m, "disk", "base:allocation")
		}
		for _, x := range exchange {
			c.send(x.r)
			if got := string(c.read(len(x.want))); got != x.want {
				t.Errorf("%v, command %d: got\n%x, want\n%x", m, x.r.cmd, got, x.want)
			}
		}
		c.disconnect()
	}
}

// TestRefused sends what must be refused. Afterwards the connection must still be in step.
func TestRefused(t *testing.T) {
	big := make([]byte, MaxPayload+1)
	type tc struct {
		what  string
		disk  string
		r     req
		want  uint32
		modes []mode // nil: all
	}
	ext, compact, notSimple := []mode{extended}, []mode{simple, structured}, []mode{structured, extended}
	cases := []tc{
		{"read past the end", "disk", req{cmd: nbdproto.CmdRead, off: testSize - 1, n: 2}, nbdproto.EInval, nil},
		{"read far past the end", "disk", req{cmd: nbdproto.CmdRead, off: 1 << 63, n: 1}, nbdproto.EInval, nil},
		{"read around the end of numbers", "disk", req{cmd: nbdproto.CmdRead, off: 1<<64 - 1, n: 2}, nbdproto.EInval, nil},
		{"empty read past the end", "disk", req{cmd: nbdproto.CmdRead, off: testSize + 1}, nbdproto.EInval, nil},
		{"write past the end", "disk", req{cmd: nbdproto.CmdWrite, off: testSize - 1, data: []byte("xx")}, nbdproto.ENoSpc, nil},
		{"long write past the end", "disk", req{cmd: nbdproto.CmdWrite, off: testSize - 1, data: big[:1<<20]}, nbdproto.ENoSpc, nil},
		{"write around the end of numbers", "disk", req{cmd: nbdproto.CmdWrite, off: 1<<64 - 1, data: []byte("xx")}, nbdproto.ENoSpc, nil},
		{"trim past the end", "disk", req{cmd: nbdproto.CmdTrim, off: testSize, n: 4096}, nbdproto.EInval, nil},
		{"zeroes past the end", "disk", req{cmd: nbdproto.CmdWriteZeroes, off: testSize, n: 4096}, nbdproto.ENoSpc, nil},
		{"cache past the end", "disk", req{cmd: nbdproto.CmdCache, off: testSize, n: 4096}, nbdproto.EInval, nil},
		{"zeroes of 64 bits", "disk", req{cmd: nbdproto.CmdWriteZeroes, n: 1 << 40}, nbdproto.ENoSpc, ext},
		{"trim of 64 bits", "disk", req{cmd: nbdproto.CmdTrim, off: 1, n: 1<<64 - 1}, nbdproto.EInval, ext},
		{"status without a context", "disk", req{cmd: nbdproto.CmdBlockStatus, n: 4096}, nbdproto.EInval, nil},

		{"write to read-only", "rom", req{cmd: nbdproto.CmdWrite, data: []byte("x")}, nbdproto.EPerm, nil},
		{"long write to read-only", "rom", req{cmd: nbdproto.CmdWrite, data: big[:1<<20]}, nbdproto.EPerm, nil},
		{"trim of read-only", "rom", req{cmd: nbdproto.CmdTrim, n: 4096}, nbdproto.EPerm, nil},
		{"zeroes to read-only", "rom", req{cmd: nbdproto.CmdWriteZeroes, n: 4096}, nbdproto.EPerm, nil},

		{"unknown command", "disk", req{cmd: 8, n: 4096}, nbdproto.EInval, nil},
		{"unknown command, high", "disk", req{cmd: 0xffff, n: 4096}, nbdproto.EInval, nil},
		{"unknown command with payload", "disk", req{cmd: 99, data: []byte("payload")}, nbdproto.EInval, ext},
		{"read with payload", "disk", req{cmd: nbdproto.CmdRead, data: []byte("payload")}, nbdproto.EInval, ext},
		{"trim with long payload", "disk", req{cmd: nbdproto.CmdTrim, data: big[:300<<10]}, nbdproto.EInval, ext},
		{"write without payload", "disk", req{cmd: nbdproto.CmdWrite, n: 4096}, nbdproto.EInval, ext},
		{"payload flag in a compact header", "disk", req{cmd: nbdproto.CmdTrim, flags: nbdproto.CmdFlagPayloadLen, n: 1}, nbdproto.EInval, compact},
		{"unknown flag", "disk", req{cmd: nbdproto.CmdRead, flags: 1 << 9, n: 1}, nbdproto.EInval, nil},
		{"unknown flag of a write", "disk", req{cmd: nbdproto.CmdWrite, flags: 1 << 15, data: []byte("xyz")}, nbdproto.EInval, nil},
		{"DF without structured replies", "disk", req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagDF, n: 1}, nbdproto.EInval, []mode{simple}},
		{"DF of a write", "disk", req{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagDF, data: []byte("xyz")}, nbdproto.EInval, nil},
		{"REQ_ONE of a read", "disk", req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagReqOne, n: 1}, nbdproto.EInval, nil},
		{"NO_HOLE of a trim", "disk", req{cmd: nbdproto.CmdTrim, flags: nbdproto.CmdFlagNoHole, n: 1}, nbdproto.EInval, nil},
		{"flag of a cache", "disk", req{cmd: nbdproto.CmdCache, flags: nbdproto.CmdFlagFastZero, n: 1}, nbdproto.EInval, nil},
		{"flush of a range", "disk", req{cmd: nbdproto.CmdFlush, n: 1}, nbdproto.EInval, nil},
		{"flush at an offset", "disk", req{cmd: nbdproto.CmdFlush, off: 1}, nbdproto.EInval, nil},
		{"fast zeroing of half a block", "disk", req{cmd: nbdproto.CmdWriteZeroes, flags: nbdproto.CmdFlagFastZero, off: 512, n: 4096}, nbdproto.ENotSup, nil},
		{"read too long", "huge", req{cmd: nbdproto.CmdRead, n: MaxPayload + 1}, nbdproto.EOverflow, notSimple},
		{"read too long", "huge", req{cmd: nbdproto.CmdRead, n: MaxPayload + 1}, nbdproto.EOverflow, []mode{simple}},
		{"write too long", "huge", req{cmd: nbdproto.CmdWrite, data: big}, nbdproto.EInval, compact},
	}
	forModes(t, withHuge, func(t *testing.T, r *rig, m mode) {
		conns := map[string]*client{}
		for i, tc := range cases {
			if tc.modes != nil && !bytes.Contains([]byte(fmt.Sprint(tc.modes)), []byte(m.String())) {
				continue
			}
			if conns[tc.disk] == nil {
				conns[tc.disk] = r.enter(t, m, tc.disk)
			}
			c := conns[tc.disk]
			tc.r.cookie = uint64(i)
			a := c.do(tc.r)
			if a.errno != tc.want {
				t.Errorf("%s: error %d %q, want %d", tc.what, a.errno, a.text, tc.want)
			}
			if m != simple && a.text == "" {
				t.Errorf("%s: no text", tc.what)
			}
			c.ok(req{cmd: nbdproto.CmdRead, off: 100, n: 10})
		}
		for _, c := range conns {
			c.disconnect()
		}
	})
}

// TestAccepted has what looks odd and is allowed.
func TestAccepted(t *testing.T) {
	forModes(t, nil, func(t *testing.T, r *rig, m mode) {
		c := r.enter(t, m, "disk")
		for _, x := range []req{
			{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagFUA, n: 10},
			{cmd: nbdproto.CmdRead, off: testSize},
			{cmd: nbdproto.CmdRead, off: testSize - 1, n: 1},
			{cmd: nbdproto.CmdTrim, flags: nbdproto.CmdFlagFUA},
			{cmd: nbdproto.CmdTrim, flags: nbdproto.CmdFlagFUA, off: 1, n: testSize - 1},
			{cmd: nbdproto.CmdFlush, flags: nbdproto.CmdFlagFUA},
			{cmd: nbdproto.CmdCache, flags: nbdproto.CmdFlagFUA, n: testSize},
			{cmd: nbdproto.CmdCache, off: testSize},
			{cmd: nbdproto.CmdWriteZeroes, flags: nbdproto.CmdFlagNoHole | nbdproto.CmdFlagFUA, n: testSize},
			{cmd: nbdproto.CmdWriteZeroes, flags: nbdproto.CmdFlagFastZero},
			{cmd: nbdproto.CmdWriteZeroes, flags: nbdproto.CmdFlagFastZero, off: 100, n: 2 * 4096},
			{cmd: nbdproto.CmdWriteZeroes, off: 1, n: 1},
			{cmd: nbdproto.CmdWrite, off: testSize - 3, data: []byte("end")},
			{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, data: pattern(100<<10, 1)},
		} {
			c.ok(x)
		}
		if m != extended {
			c.ok(req{cmd: nbdproto.CmdWrite, off: testSize}) // in an extended header a payload has at least a byte
		}
		c.disconnect()
	})
}

// withHuge adds an export longer than the longest payload.
func withHuge(_ *Config, s *shelf) { s.add("huge", 1<<33) }

// TestHopeless has requests after which the stream cannot be followed, or should not be.
func TestHopeless(t *testing.T) {
	wrong := req{cmd: nbdproto.CmdRead, n: 1}.bytes(structured)
	wrong[0] ^= 0xff
	tooLong := req{cmd: nbdproto.CmdWrite}.bytes(structured)
	binary.BigEndian.PutUint32(tooLong[24:], maxUnwantedPayload+1)
	extLong := req{cmd: nbdproto.CmdTrim, flags: nbdproto.CmdFlagPayloadLen, n: MaxPayload + 1}.bytes(extended)
	for _, tc := range []struct {
		what string
		m    mode
		send []byte
	}{
		{"wrong magic", simple, wrong},
		{"compact header where extended ones are in use", extended, append(req{cmd: nbdproto.CmdRead, n: 1}.bytes(simple), 0, 0, 0, 0)},
		{"far too long a write", structured, tooLong},
		{"payload beyond the maximum", extended, extLong},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c := newRig(t, withHuge).enter(t, tc.m, "huge")
			// What came before is still answered.
			c.write(append(req{cmd: nbdproto.CmdFlush, cookie: 5}.bytes(tc.m), tc.send...))
			if a := c.answer(req{cmd: nbdproto.CmdFlush, cookie: 5}); a.errno != 0 {
				t.Errorf("flush: error %d", a.errno)
			}
			c.closed()
		})
	}
}

// TestDisconnectFinishesRequests says goodbye behind a load of requests, all of which must be answered.
func TestDisconnectFinishesRequests(t *testing.T) {
	forModes(t, func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 2 }, func(t *testing.T, r *rig, m mode) {
		c := r.enter(t, m, "disk")
		var all []byte
		reqs := map[uint64]req{}
		for i := range uint64(100) {
			x := req{cmd: nbdproto.CmdRead, cookie: i, off: i * 4096, n: 4096}
			switch i % 4 {
			case 1:
				x = req{cmd: nbdproto.CmdWrite, cookie: i, off: i * 4096, data: pattern(4096, 0)}
			case 2:
				x = req{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, cookie: i, off: i * 4096, data: pattern(80<<10, 0)}
			case 3:
				x = req{cmd: nbdproto.CmdFlush, cookie: i}
			}
			reqs[i] = x
			all = append(all, x.bytes(m)...)
		}
		all = append(all, req{cmd: nbdproto.CmdDisc}.bytes(m)...)
		go c.nc.Write(all)
		answers := map[uint64]*answer{}
		for done := 0; done < len(reqs); {
			k, err := c.chunk()
			if err != nil {
				t.Fatalf("after %d replies: %v", done, err)
			}
			if answers[k.cookie] == nil {
				answers[k.cookie] = &answer{}
			}
			if err := answers[k.cookie].gather(c, reqs[k.cookie], k); err != nil || k.errno != 0 {
				t.Fatalf("%+v: %v", k, err)
			}
			if k.done() {
				done++
			}
		}
		c.closed()
	})
}

// TestWritesOfABatch checks that writes that arrive together are written together.
func TestWritesOfABatch(t *testing.T) {
	r := newRig(t, nil)
	c := r.enter(t, structured, "disk")
	var all []byte
	for i := range uint64(32) {
		all = append(all, req{cmd: nbdproto.CmdWrite, cookie: i, off: i * 512, data: pattern(512, byte(i))}.bytes(structured)...)
	}
	c.write(all)
	for i := range uint64(32) {
		c.answer(req{cmd: nbdproto.CmdWrite, cookie: i})
	}
	if batches, writes := r.shelf.disks["disk"].Batches(); batches > 2 || writes != 32 {
		t.Errorf("%d writes in %d batches", writes, batches)
	}
}

// TestExportErrors checks how errors of an export reach the client.
func TestExportErrors(t *testing.T) {
	var failing atomic.Pointer[error]
	fail := func(err error) { failing.Store(&err) }
	broken := func(_ *Config, s *shelf) {
		s.disks["disk"].Fail = func(string, int64, int64) error { return *failing.Load() }
	}
	all := []req{
		{cmd: nbdproto.CmdRead, n: 4096}, {cmd: nbdproto.CmdRead, n: 1 << 20},
		{cmd: nbdproto.CmdWrite, data: pattern(512, 0)}, {cmd: nbdproto.CmdWrite, data: pattern(1<<20, 0)},
		{cmd: nbdproto.CmdWrite, flags: nbdproto.CmdFlagFUA, data: pattern(512, 0)},
		{cmd: nbdproto.CmdFlush}, {cmd: nbdproto.CmdTrim, n: 4096}, {cmd: nbdproto.CmdWriteZeroes, n: 4096}, {cmd: nbdproto.CmdCache, n: 4096},
	}
	forModes(t, broken, func(t *testing.T, r *rig, m mode) {
		fail(nil)
		c := r.enter(t, m, "disk")
		for _, e := range []struct {
			err  error
			want uint32
		}{
			{errors.New("the disk is on fire"), nbdproto.EIO},
			{syscall.EPERM, nbdproto.EPerm}, {syscall.ENOSPC, nbdproto.ENoSpc}, {syscall.EINVAL, nbdproto.EInval}, {syscall.EROFS, nbdproto.EPerm},
			{syscall.EDQUOT, nbdproto.ENoSpc}, {syscall.ENOMEM, nbdproto.ENoMem}, {syscall.EOVERFLOW, nbdproto.EOverflow},
			{syscall.ENOTSUP, nbdproto.EInval}, {syscall.ESHUTDOWN, nbdproto.EShutdown}, {syscall.EBADF, nbdproto.EIO},
			{fmt.Errorf("text \xff\x00: %w", syscall.ENOSPC), nbdproto.ENoSpc},
			{errors.New(strings.Repeat("long", 4000)), nbdproto.EIO},
		} {
			fail(e.err)
			for _, x := range all {
				a := c.do(x)
				if a.errno != e.want {
					t.Errorf("%v, command %d: error %d, want %d", e.err, x.cmd, a.errno, e.want)
				}
				if m != simple && (a.text == "" || len(a.text) > maxErrorText || !validString(a.text)) {
					t.Errorf("%v, command %d: text %q", e.err, x.cmd, a.text)
				}
			}
		}
		fail(fmt.Errorf("reading: %w", &OffsetError{Offset: 8192, Err: syscall.EIO}))
		if a := c.do(req{cmd: nbdproto.CmdRead, off: 4096, n: 8192}); m != simple && a.errOff != 8192 {
			t.Errorf("the error's offset is %d", a.errOff)
		}
		if a := c.do(req{cmd: nbdproto.CmdRead, n: 4096}); a.errOff != 0 || a.errno != nbdproto.EIO {
			t.Errorf("an offset outside of the request: %d, error %d", a.errOff, a.errno)
		}
		fail(nil)
		c.ok(req{cmd: nbdproto.CmdRead, n: 4096})
	})
}

// TestGrow checks that an export that grew is served to its new end on connections that were there before.
func TestGrow(t *testing.T) {
	r := newRig(t, nil)
	c := r.enter(t, extended, "disk")
	x := req{cmd: nbdproto.CmdWrite, off: testSize, data: []byte("beyond")}
	if a := c.do(x); a.errno != nbdproto.ENoSpc {
		t.Fatalf("error %d", a.errno)
	}
	r.shelf.disks["disk"].Grow(testSize + 4096)
	c.ok(x)
}

// TestFlushOnFUA counts flushes: one for each request that asks for durability, none otherwise.
func TestFlushOnFUA(t *testing.T) {
	r := newRig(t, nil)
	c := r.enter(t, extended, "disk")
	want := int64(0)
	for _, flags := range []uint16{0, nbdproto.CmdFlagFUA} {
		for _, x := range []req{
			{cmd: nbdproto.CmdWrite, data: pattern(512, 0)}, {cmd: nbdproto.CmdWrite, data: pattern(1<<20, 0)},
			{cmd: nbdproto.CmdTrim, n: 4096}, {cmd: nbdproto.CmdWriteZeroes, n: 4096},
		} {
			x.flags = flags
			c.ok(x)
			if flags == nbdproto.CmdFlagFUA {
				want++
			}
			if got := r.shelf.disks["disk"].Flushes(); got != want {
				t.Errorf("%+v: %d flushes, want %d", x.cmd, got, want)
			}
		}
	}
}

// TestReadHoles reads data and holes together.
func TestReadHoles(t *testing.T) {
	forModes(t, func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 2 }, func(t *testing.T, r *rig, m mode) {
		c := r.enter(t, m, "disk")
		want := make([]byte, testSize)
		for _, off := range []int{64 << 10, 1 << 20, 1<<20 + 8192, 2<<20 - 512, testSize - 4096} {
			p := pattern(4096, byte(off>>9))
			copy(want[off:], p)
			c.ok(req{cmd: nbdproto.CmdWrite, off: uint64(off), data: p})
		}
		a := c.ok(req{cmd: nbdproto.CmdRead, n: testSize})
		if !bytes.Equal(a.data, want) {
			t.Error("wrong data")
		}
		if holes := a.holes; (m == simple) != (holes == 0) || m != simple && holes != 4 {
			t.Errorf("%d holes", holes)
		}
		for range 2 { // by the reader, by a worker
			if a := c.ok(req{cmd: nbdproto.CmdRead, off: 512, n: 4096}); m != simple && a.holes != 1 {
				t.Errorf("%d holes in a short read of one", a.holes)
			}
		}
		if m == simple {
			return
		}
		for _, n := range []uint64{4096, 65536, testSize} {
			a := c.ok(req{cmd: nbdproto.CmdRead, flags: nbdproto.CmdFlagDF, n: n})
			if a.chunks != 1 || a.holes != 0 || !bytes.Equal(a.data, want[:n]) {
				t.Errorf("read of %d with DF: %d chunks, %d holes", n, a.chunks, a.holes)
			}
		}
	})
}

// TestUnwantedBytesAfterDisconnect: what follows a goodbye is ignored.
func TestUnwantedBytesAfterDisconnect(t *testing.T) {
	c := newRig(t, nil).enter(t, simple, "disk")
	c.write(append(req{cmd: nbdproto.CmdDisc}.bytes(simple), "garbage"...))
	if p, _ := io.ReadAll(c.nc); len(p) != 0 {
		t.Errorf("%x after the goodbye", p)
	}
}
