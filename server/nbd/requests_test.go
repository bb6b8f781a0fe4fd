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
	read := req{cmd: cmdRead, cookie: 0x1122334455667788, off: 4096, n: 4}
	write := req{cmd: cmdWrite, cookie: 0x1122334455667788, off: 4096, data: []byte("data")}
	beyond := req{cmd: cmdTrim, cookie: 0x1122334455667788, off: testSize, n: 1}
	status := req{cmd: cmdBlockStatus, cookie: 0x1122334455667788, off: 4096, n: 8192}
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
		{"read past the end", "disk", req{cmd: cmdRead, off: testSize - 1, n: 2}, eInval, nil},
		{"read far past the end", "disk", req{cmd: cmdRead, off: 1 << 63, n: 1}, eInval, nil},
		{"read around the end of numbers", "disk", req{cmd: cmdRead, off: 1<<64 - 1, n: 2}, eInval, nil},
		{"empty read past the end", "disk", req{cmd: cmdRead, off: testSize + 1}, eInval, nil},
		{"write past the end", "disk", req{cmd: cmdWrite, off: testSize - 1, data: []byte("xx")}, eNoSpc, nil},
		{"long write past the end", "disk", req{cmd: cmdWrite, off: testSize - 1, data: big[:1<<20]}, eNoSpc, nil},
		{"write around the end of numbers", "disk", req{cmd: cmdWrite, off: 1<<64 - 1, data: []byte("xx")}, eNoSpc, nil},
		{"trim past the end", "disk", req{cmd: cmdTrim, off: testSize, n: 4096}, eInval, nil},
		{"zeroes past the end", "disk", req{cmd: cmdWriteZeroes, off: testSize, n: 4096}, eNoSpc, nil},
		{"cache past the end", "disk", req{cmd: cmdCache, off: testSize, n: 4096}, eInval, nil},
		{"zeroes of 64 bits", "disk", req{cmd: cmdWriteZeroes, n: 1 << 40}, eNoSpc, ext},
		{"trim of 64 bits", "disk", req{cmd: cmdTrim, off: 1, n: 1<<64 - 1}, eInval, ext},
		{"status without a context", "disk", req{cmd: cmdBlockStatus, n: 4096}, eInval, nil},

		{"write to read-only", "rom", req{cmd: cmdWrite, data: []byte("x")}, ePerm, nil},
		{"long write to read-only", "rom", req{cmd: cmdWrite, data: big[:1<<20]}, ePerm, nil},
		{"trim of read-only", "rom", req{cmd: cmdTrim, n: 4096}, ePerm, nil},
		{"zeroes to read-only", "rom", req{cmd: cmdWriteZeroes, n: 4096}, ePerm, nil},

		{"unknown command", "disk", req{cmd: 8, n: 4096}, eInval, nil},
		{"unknown command, high", "disk", req{cmd: 0xffff, n: 4096}, eInval, nil},
		{"unknown command with payload", "disk", req{cmd: 99, data: []byte("payload")}, eInval, ext},
		{"read with payload", "disk", req{cmd: cmdRead, data: []byte("payload")}, eInval, ext},
		{"trim with long payload", "disk", req{cmd: cmdTrim, data: big[:300<<10]}, eInval, ext},
		{"write without payload", "disk", req{cmd: cmdWrite, n: 4096}, eInval, ext},
		{"payload flag in a compact header", "disk", req{cmd: cmdTrim, flags: cmdFlagPayloadLen, n: 1}, eInval, compact},
		{"unknown flag", "disk", req{cmd: cmdRead, flags: 1 << 9, n: 1}, eInval, nil},
		{"unknown flag of a write", "disk", req{cmd: cmdWrite, flags: 1 << 15, data: []byte("xyz")}, eInval, nil},
		{"DF without structured replies", "disk", req{cmd: cmdRead, flags: cmdFlagDF, n: 1}, eInval, []mode{simple}},
		{"DF of a write", "disk", req{cmd: cmdWrite, flags: cmdFlagDF, data: []byte("xyz")}, eInval, nil},
		{"REQ_ONE of a read", "disk", req{cmd: cmdRead, flags: cmdFlagReqOne, n: 1}, eInval, nil},
		{"NO_HOLE of a trim", "disk", req{cmd: cmdTrim, flags: cmdFlagNoHole, n: 1}, eInval, nil},
		{"flag of a cache", "disk", req{cmd: cmdCache, flags: cmdFlagFastZero, n: 1}, eInval, nil},
		{"flush of a range", "disk", req{cmd: cmdFlush, n: 1}, eInval, nil},
		{"flush at an offset", "disk", req{cmd: cmdFlush, off: 1}, eInval, nil},
		{"fast zeroing of half a block", "disk", req{cmd: cmdWriteZeroes, flags: cmdFlagFastZero, off: 512, n: 4096}, eNotSup, nil},
		{"read too long", "huge", req{cmd: cmdRead, n: MaxPayload + 1}, eOverflow, notSimple},
		{"read too long", "huge", req{cmd: cmdRead, n: MaxPayload + 1}, eOverflow, []mode{simple}},
		{"write too long", "huge", req{cmd: cmdWrite, data: big}, eInval, compact},
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
			c.ok(req{cmd: cmdRead, off: 100, n: 10})
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
			{cmd: cmdRead, flags: cmdFlagFUA, n: 10},
			{cmd: cmdRead, off: testSize},
			{cmd: cmdRead, off: testSize - 1, n: 1},
			{cmd: cmdTrim, flags: cmdFlagFUA},
			{cmd: cmdTrim, flags: cmdFlagFUA, off: 1, n: testSize - 1},
			{cmd: cmdFlush, flags: cmdFlagFUA},
			{cmd: cmdCache, flags: cmdFlagFUA, n: testSize},
			{cmd: cmdCache, off: testSize},
			{cmd: cmdWriteZeroes, flags: cmdFlagNoHole | cmdFlagFUA, n: testSize},
			{cmd: cmdWriteZeroes, flags: cmdFlagFastZero},
			{cmd: cmdWriteZeroes, flags: cmdFlagFastZero, off: 100, n: 2 * 4096},
			{cmd: cmdWriteZeroes, off: 1, n: 1},
			{cmd: cmdWrite, off: testSize - 3, data: []byte("end")},
			{cmd: cmdWrite, flags: cmdFlagFUA, data: pattern(100<<10, 1)},
		} {
			c.ok(x)
		}
		if m != extended {
			c.ok(req{cmd: cmdWrite, off: testSize}) // in an extended header a payload has at least a byte
		}
		c.disconnect()
	})
}

// withHuge adds an export longer than the longest payload.
func withHuge(_ *Config, s *shelf) { s.add("huge", 1<<33) }

// TestHopeless has requests after which the stream cannot be followed, or should not be.
func TestHopeless(t *testing.T) {
	wrong := req{cmd: cmdRead, n: 1}.bytes(structured)
	wrong[0] ^= 0xff
	tooLong := req{cmd: cmdWrite}.bytes(structured)
	binary.BigEndian.PutUint32(tooLong[24:], maxUnwantedPayload+1)
	extLong := req{cmd: cmdTrim, flags: cmdFlagPayloadLen, n: MaxPayload + 1}.bytes(extended)
	for _, tc := range []struct {
		what string
		m    mode
		send []byte
	}{
		{"wrong magic", simple, wrong},
		{"compact header where extended ones are in use", extended, append(req{cmd: cmdRead, n: 1}.bytes(simple), 0, 0, 0, 0)},
		{"far too long a write", structured, tooLong},
		{"payload beyond the maximum", extended, extLong},
	} {
		t.Run(tc.what, func(t *testing.T) {
			c := newRig(t, withHuge).enter(t, tc.m, "huge")
			// What came before is still answered.
			c.write(append(req{cmd: cmdFlush, cookie: 5}.bytes(tc.m), tc.send...))
			if a := c.answer(req{cmd: cmdFlush, cookie: 5}); a.errno != 0 {
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
			x := req{cmd: cmdRead, cookie: i, off: i * 4096, n: 4096}
			switch i % 4 {
			case 1:
				x = req{cmd: cmdWrite, cookie: i, off: i * 4096, data: pattern(4096, 0)}
			case 2:
				x = req{cmd: cmdWrite, flags: cmdFlagFUA, cookie: i, off: i * 4096, data: pattern(80<<10, 0)}
			case 3:
				x = req{cmd: cmdFlush, cookie: i}
			}
			reqs[i] = x
			all = append(all, x.bytes(m)...)
		}
		all = append(all, req{cmd: cmdDisc}.bytes(m)...)
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
		all = append(all, req{cmd: cmdWrite, cookie: i, off: i * 512, data: pattern(512, byte(i))}.bytes(structured)...)
	}
	c.write(all)
	for i := range uint64(32) {
		c.answer(req{cmd: cmdWrite, cookie: i})
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
		{cmd: cmdRead, n: 4096}, {cmd: cmdRead, n: 1 << 20},
		{cmd: cmdWrite, data: pattern(512, 0)}, {cmd: cmdWrite, data: pattern(1<<20, 0)},
		{cmd: cmdWrite, flags: cmdFlagFUA, data: pattern(512, 0)},
		{cmd: cmdFlush}, {cmd: cmdTrim, n: 4096}, {cmd: cmdWriteZeroes, n: 4096}, {cmd: cmdCache, n: 4096},
	}
	forModes(t, broken, func(t *testing.T, r *rig, m mode) {
		fail(nil)
		c := r.enter(t, m, "disk")
		for _, e := range []struct {
			err  error
			want uint32
		}{
			{errors.New("the disk is on fire"), eIO},
			{syscall.EPERM, ePerm}, {syscall.ENOSPC, eNoSpc}, {syscall.EINVAL, eInval}, {syscall.EROFS, ePerm},
			{syscall.EDQUOT, eNoSpc}, {syscall.ENOMEM, eNoMem}, {syscall.EOVERFLOW, eOverflow},
			{syscall.ENOTSUP, eInval}, {syscall.ESHUTDOWN, eShutdown}, {syscall.EBADF, eIO},
			{fmt.Errorf("text \xff\x00: %w", syscall.ENOSPC), eNoSpc},
			{errors.New(strings.Repeat("long", 4000)), eIO},
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
		if a := c.do(req{cmd: cmdRead, off: 4096, n: 8192}); m != simple && a.errOff != 8192 {
			t.Errorf("the error's offset is %d", a.errOff)
		}
		if a := c.do(req{cmd: cmdRead, n: 4096}); a.errOff != 0 || a.errno != eIO {
			t.Errorf("an offset outside of the request: %d, error %d", a.errOff, a.errno)
		}
		fail(nil)
		c.ok(req{cmd: cmdRead, n: 4096})
	})
}

// TestGrow checks that an export that grew is served to its new end on connections that were there before.
func TestGrow(t *testing.T) {
	r := newRig(t, nil)
	c := r.enter(t, extended, "disk")
	x := req{cmd: cmdWrite, off: testSize, data: []byte("beyond")}
	if a := c.do(x); a.errno != eNoSpc {
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
	for _, flags := range []uint16{0, cmdFlagFUA} {
		for _, x := range []req{
			{cmd: cmdWrite, data: pattern(512, 0)}, {cmd: cmdWrite, data: pattern(1<<20, 0)},
			{cmd: cmdTrim, n: 4096}, {cmd: cmdWriteZeroes, n: 4096},
		} {
			x.flags = flags
			c.ok(x)
			if flags == cmdFlagFUA {
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
			c.ok(req{cmd: cmdWrite, off: uint64(off), data: p})
		}
		a := c.ok(req{cmd: cmdRead, n: testSize})
		if !bytes.Equal(a.data, want) {
			t.Error("wrong data")
		}
		if holes := a.holes; (m == simple) != (holes == 0) || m != simple && holes != 4 {
			t.Errorf("%d holes", holes)
		}
		for range 2 { // by the reader, by a worker
			if a := c.ok(req{cmd: cmdRead, off: 512, n: 4096}); m != simple && a.holes != 1 {
				t.Errorf("%d holes in a short read of one", a.holes)
			}
		}
		if m == simple {
			return
		}
		for _, n := range []uint64{4096, 65536, testSize} {
			a := c.ok(req{cmd: cmdRead, flags: cmdFlagDF, n: n})
			if a.chunks != 1 || a.holes != 0 || !bytes.Equal(a.data, want[:n]) {
				t.Errorf("read of %d with DF: %d chunks, %d holes", n, a.chunks, a.holes)
			}
		}
	})
}

// TestUnwantedBytesAfterDisconnect: what follows a goodbye is ignored.
func TestUnwantedBytesAfterDisconnect(t *testing.T) {
	c := newRig(t, nil).enter(t, simple, "disk")
	c.write(append(req{cmd: cmdDisc}.bytes(simple), "garbage"...))
	if p, _ := io.ReadAll(c.nc); len(p) != 0 {
		t.Errorf("%x after the goodbye", p)
	}
}
