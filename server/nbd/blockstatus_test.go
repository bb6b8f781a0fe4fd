package nbd

import (
	"encoding/binary"
	"io"
	"testing"

	"lsad/internal/nbdproto"
)

// TestStatusPayload has the form of BLOCK_STATUS that names contexts, with more than one context to name.
func TestStatusPayload(t *testing.T) {
	r := newRig(t, nil)
	always := func(status uint64) func(Export, int64, int64, func(int64, uint64) bool) error {
		return func(_ Export, _, n int64, emit func(int64, uint64) bool) error {
			for n > 0 && emit(min(n, 512), status) {
				n -= 512
				status ^= 1 // every range is one of its own
			}
			return nil
		}
	}
	r.contexts = []metaContext{metaContexts[0], {"x-a:one", always(8)}, {"x-a:two", always(16)}}
	c := r.dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.ack(nbdproto.OptExtendedHeaders, nil)
	c.mode = extended
	c.setMeta("disk", "base:allocation", "x-a:one", "x-a:two", "x-a:none")
	if len(c.contexts) != 3 || c.contexts[3] != "x-a:two" {
		t.Fatalf("contexts %v", c.contexts)
	}
	c.goTo("disk")
	if c.flags&nbdproto.FlagBlockStatusPayload == 0 {
		t.Error("the payload form is not offered")
	}
	payload := func(n uint64, ids ...uint32) req {
		p := binary.BigEndian.AppendUint64(nil, n)
		for _, id := range ids {
			p = binary.BigEndian.AppendUint32(p, id)
		}
		return req{cmd: nbdproto.CmdBlockStatus, off: 4096, data: p}
	}
	a := c.ok(req{cmd: nbdproto.CmdBlockStatus, off: 4096, n: 8192})
	if len(a.status) != 3 || len(a.status[1]) != 1 || len(a.status[2]) != 16 || a.status[3][1] != (extent{512, 17}) {
		t.Errorf("all contexts: %v", a.status)
	}
	for _, ids := range [][]uint32{{1}, {3, 1}, {1, 2, 3}} {
		a := c.ok(payload(4096, ids...))
		if len(a.status) != len(ids) {
			t.Errorf("contexts %v: %v", ids, a.status)
		}
		for _, id := range ids {
			if len(a.status[id]) == 0 {
				t.Errorf("contexts %v: none of %d", ids, id)
			}
		}
	}
	one := payload(1<<20, 2)
	one.flags = nbdproto.CmdFlagReqOne
	if a := c.ok(one); len(a.status[2]) != 1 {
		t.Errorf("REQ_ONE: %v", a.status)
	}
	// As many ranges as the buffer holds; the client asks on.
	if a := c.ok(payload(testSize-4096, 3)); len(a.status[3]) < 1000 || len(a.status[3]) > statusBuffer/16 {
		t.Errorf("%d ranges", len(a.status[3]))
	}
	for what, x := range map[string]req{
		"unknown id": payload(4096, 1, 4), "id twice": payload(4096, 1, 1), "no ids": payload(4096),
		"too many ids": payload(4096, 1, 2, 3, 1), "zero length": payload(0, 1), "past the end": payload(testSize, 1),
		"length of 64 bits": payload(1<<63, 1),
		"odd length":        {cmd: nbdproto.CmdBlockStatus, data: make([]byte, 13)},
		"long":              {cmd: nbdproto.CmdBlockStatus, data: make([]byte, 1<<20)},
	} {
		if a := c.do(x); a.errno != nbdproto.EInval {
			t.Errorf("%s: error %d", what, a.errno)
		}
	}
	c.disconnect()
}

// TestStatusOf64Bits asks for more than compact headers can tell.
func TestStatusOf64Bits(t *testing.T) {
	r := newRig(t, withHuge)
	c := r.enter(t, extended, "huge", "base:allocation")
	if a := c.ok(req{cmd: nbdproto.CmdBlockStatus, n: 1 << 33}); a.status[1][0] != (extent{1 << 33, 3}) {
		t.Errorf("%v", a.status)
	}
	c.ok(req{cmd: nbdproto.CmdWriteZeroes, n: 1 << 33})
	c.ok(req{cmd: nbdproto.CmdTrim, n: 1 << 33})
	c.disconnect()
	if _, err := io.ReadAll(c.nc); err != nil {
		t.Error(err)
	}
}
