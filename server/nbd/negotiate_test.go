package nbd

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"lsad/internal/nbdproto"
)

// flags of the two exports before anything was negotiated.
const (
	diskFlags = 0x0001 | 0x0004 | 0x0008 | 0x0020 | 0x0040 | 0x0100 | 0x0400 | 0x0800
	romFlags  = 0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0100 | 0x0400
)

func TestExportName(t *testing.T) {
	r := newRig(t, nil)
	for _, tc := range []struct {
		name  string
		flags uint32
		pad   int
		want  uint16
	}{
		{"disk", nbdproto.FlagFixedNewstyle, 124, diskFlags},
		{"disk", nbdproto.FlagFixedNewstyle | nbdproto.FlagNoZeroes, 0, diskFlags},
		{"disk", 0, 124, diskFlags},
		{"", nbdproto.FlagNoZeroes, 0, diskFlags},
		{"rom", nbdproto.FlagNoZeroes, 0, romFlags},
	} {
		c := r.dial(t)
		c.greet(tc.flags)
		c.write(option(nbdproto.OptExportName, []byte(tc.name)))
		want := binary.BigEndian.AppendUint64(nil, testSize)
		want = binary.BigEndian.AppendUint16(want, tc.want)
		want = append(want, make([]byte, tc.pad)...)
		if got := c.read(len(want)); !bytes.Equal(got, want) {
			t.Errorf("%+v: got %x, want %x", tc, got, want)
		}
		if a := c.ok(req{cmd: nbdproto.CmdRead, cookie: 7, n: 512}); !bytes.Equal(a.data, make([]byte, 512)) {
			t.Errorf("%+v: read %x", tc, a.data)
		}
		c.disconnect()
	}
}

// TestHangUp has everything that the server must or may not answer.
func TestHangUp(t *testing.T) {
	r := newRig(t, nil)
	long := option(99, nil)
	binary.BigEndian.PutUint32(long[12:], maxSkippedOption+1)
	for name, send := range map[string][]byte{
		"unknown client flags":    {0, 0, 0, 7},
		"wrong option magic":      append([]byte{0, 0, 0, 3}, bytes.ToLower(option(nbdproto.OptList, nil))...),
		"unknown export name":     append([]byte{0, 0, 0, 3}, option(nbdproto.OptExportName, []byte("nope"))...),
		"export name not UTF-8":   append([]byte{0, 0, 0, 3}, option(nbdproto.OptExportName, []byte{0xff})...),
		"export name too long":    append([]byte{0, 0, 0, 3}, option(nbdproto.OptExportName, make([]byte, maxOption+1))...),
		"option too long":         append([]byte{0, 0, 0, 3}, long...),
		"GO of length 0 and long": append([]byte{0, 0, 0, 0}, append(option(nbdproto.OptGo, nil), 0, 1, 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial(t)
			c.read(18)
			c.write(send)
			c.closed()
		})
	}
	if r.Stats().BadHandshakes == 0 {
		t.Error("bad handshakes are not counted")
	}
}

// TestOptions has one exchange after another on one connection, which is kept through all of them.
func TestOptions(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial(t)
	c.greet(nbdproto.FlagFixedNewstyle | nbdproto.FlagNoZeroes)

	export := func(flags uint16) optReply {
		p := binary.BigEndian.AppendUint64([]byte{0, nbdproto.InfoExport}, testSize)
		return optReply{nbdproto.RepInfo, binary.BigEndian.AppendUint16(p, flags)}
	}
	blockSize := optReply{nbdproto.RepInfo, []byte{0, nbdproto.InfoBlockSize, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0}}
	ack := optReply{typ: nbdproto.RepAck}
	refused := func(typ uint32) []optReply { return []optReply{{typ: typ}} }
	infos := func(flags uint16, more ...optReply) []optReply {
		return append(append([]optReply{export(flags), blockSize}, more...), ack)
	}
	allocation := func(id uint32) []optReply {
		return []optReply{{nbdproto.RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), "base:allocation"...)}, ack}
	}
	infoName := optReply{nbdproto.RepInfo, append([]byte{0, nbdproto.InfoName}, "disk"...)}
	infoText := optReply{nbdproto.RepInfo, append([]byte{0, nbdproto.InfoDescription}, about["disk"]...)}
	short := str("disk")

	for _, tc := range []struct {
		what string
		opt  uint32
		data []byte
		want []optReply
	}{
		{"list", nbdproto.OptList, nil, []optReply{
			{nbdproto.RepServer, append(str("disk"), about["disk"]...)}, {nbdproto.RepServer, str("rom")}, ack}},
		{"list with data", nbdproto.OptList, []byte{1}, refused(nbdproto.RepErrInvalid)},
		{"unknown option", 4242, []byte("data"), refused(nbdproto.RepErrUnsup)},
		{"peek export", 4, nil, refused(nbdproto.RepErrUnsup)},
		{"option too big", 4242, make([]byte, maxOption+1), refused(nbdproto.RepErrTooBig)},
		{"list too big", nbdproto.OptList, make([]byte, maxOption+1), refused(nbdproto.RepErrTooBig)},
		{"starttls without TLS", nbdproto.OptStartTLS, nil, refused(nbdproto.RepErrPolicy)},

		{"info", nbdproto.OptInfo, infoData("disk"), infos(diskFlags)},
		{"info of the default", nbdproto.OptInfo, infoData("", 1, 2, 3), infos(diskFlags, infoName, infoText)},
		{"info, asked in another order, twice, and unknown", nbdproto.OptInfo, infoData("disk", 2, 2, 3, 0, 77, 1), infos(diskFlags, infoText, infoName)},
		{"info of a read-only export", nbdproto.OptInfo, infoData("rom"), infos(romFlags)},
		{"info of none", nbdproto.OptInfo, infoData("nope"), refused(nbdproto.RepErrUnknown)},
		{"info without data", nbdproto.OptInfo, nil, refused(nbdproto.RepErrInvalid)},
		{"info cut short", nbdproto.OptInfo, short, refused(nbdproto.RepErrInvalid)},
		{"info with a long name", nbdproto.OptInfo, append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 10)...), refused(nbdproto.RepErrInvalid)},
		{"info with fewer requests than said", nbdproto.OptInfo, append(short, 0, 2, 0, 1), refused(nbdproto.RepErrInvalid)},
		{"info with more requests than said", nbdproto.OptInfo, append(short, 0, 0, 0, 1), refused(nbdproto.RepErrInvalid)},
		{"info of a name with NUL", nbdproto.OptInfo, infoData("di\x00sk"), refused(nbdproto.RepErrInvalid)},
		{"info of a name too long", nbdproto.OptInfo, infoData(strings.Repeat("x", nbdproto.MaxString+1)), refused(nbdproto.RepErrInvalid)},
		{"go to none", nbdproto.OptGo, infoData("nope"), refused(nbdproto.RepErrUnknown)},
		{"go without data", nbdproto.OptGo, nil, refused(nbdproto.RepErrInvalid)},

		{"list contexts too early", nbdproto.OptListMetaContext, metaData("disk"), refused(nbdproto.RepErrInvalid)},
		{"set contexts too early", nbdproto.OptSetMetaContext, metaData("disk", "base:allocation"), refused(nbdproto.RepErrInvalid)},
		{"structured replies with data", nbdproto.OptStructuredReply, []byte{0}, refused(nbdproto.RepErrInvalid)},
		{"structured replies", nbdproto.OptStructuredReply, nil, refused(nbdproto.RepAck)},
		{"structured replies again", nbdproto.OptStructuredReply, nil, refused(nbdproto.RepAck)},
		{"info with DF", nbdproto.OptInfo, infoData("disk"), infos(diskFlags | 0x80)},

		{"all contexts", nbdproto.OptListMetaContext, metaData("disk"), allocation(0)},
		{"contexts by wildcard", nbdproto.OptListMetaContext, metaData("disk", "base:"), allocation(0)},
		{"context by name, twice", nbdproto.OptListMetaContext, metaData("disk", "base:allocation", "base:allocation"), allocation(0)},
		{"unknown leaf", nbdproto.OptListMetaContext, metaData("disk", "base:other"), refused(nbdproto.RepAck)},
		{"unknown namespace", nbdproto.OptListMetaContext, metaData("disk", "qemu:dirty-bitmap:x", "x-y:"), refused(nbdproto.RepAck)},
		{"contexts of none", nbdproto.OptListMetaContext, metaData("nope"), refused(nbdproto.RepErrUnknown)},
		{"query without a colon", nbdproto.OptListMetaContext, metaData("disk", "base"), refused(nbdproto.RepErrInvalid)},
		{"query without a namespace", nbdproto.OptListMetaContext, metaData("disk", ":x"), refused(nbdproto.RepErrInvalid)},
		{"empty query", nbdproto.OptListMetaContext, metaData("disk", ""), refused(nbdproto.RepErrInvalid)},
		{"query count missing", nbdproto.OptListMetaContext, short, refused(nbdproto.RepErrInvalid)},
		{"queries missing", nbdproto.OptListMetaContext, append(str("disk"), 0xff, 0xff, 0xff, 0xff), refused(nbdproto.RepErrInvalid)},
		{"query cut short", nbdproto.OptSetMetaContext, append(str("disk"), 0, 0, 0, 1, 0, 0, 0, 9, 'b'), refused(nbdproto.RepErrInvalid)},
		{"data after the queries", nbdproto.OptSetMetaContext, append(metaData("disk", "base:allocation"), 0), refused(nbdproto.RepErrInvalid)},
		{"name of contexts too long", nbdproto.OptSetMetaContext, []byte{0, 0, 0, 9, 'x'}, refused(nbdproto.RepErrInvalid)},
		{"set none", nbdproto.OptSetMetaContext, metaData("disk"), refused(nbdproto.RepAck)},
		{"set by wildcard", nbdproto.OptSetMetaContext, metaData("disk", "base:"), refused(nbdproto.RepAck)},
		{"set unknown", nbdproto.OptSetMetaContext, metaData("disk", "base:other", "x-z:1"), refused(nbdproto.RepAck)},
		{"set", nbdproto.OptSetMetaContext, metaData("disk", "x-z:1", "base:allocation"), allocation(1)},

		{"extended headers with data", nbdproto.OptExtendedHeaders, []byte{0}, refused(nbdproto.RepErrInvalid)},
		{"extended headers", nbdproto.OptExtendedHeaders, nil, refused(nbdproto.RepAck)},
		{"structured after extended", nbdproto.OptStructuredReply, nil, refused(nbdproto.RepErrExtHeaderReqd)},
		{"info with status payload", nbdproto.OptInfo, infoData("disk"), infos(diskFlags | 0x80 | 0x1000)},
		{"info of another export", nbdproto.OptInfo, infoData("rom"), infos(romFlags | 0x80)},
		{"failed set forgets", nbdproto.OptSetMetaContext, metaData("disk", "base"), refused(nbdproto.RepErrInvalid)},
		{"info without contexts", nbdproto.OptInfo, infoData("disk"), infos(diskFlags | 0x80)},
		{"abort with data", nbdproto.OptAbort, []byte("bye"), refused(nbdproto.RepAck)},
	} {
		got := c.option(tc.opt, tc.data)
		if len(got) != len(tc.want) {
			t.Fatalf("%s: got %x, want %x", tc.what, got, tc.want)
		}
		for i := range got {
			isError := got[i].typ >= 1<<31
			if got[i].typ != tc.want[i].typ || !isError && !bytes.Equal(got[i].data, tc.want[i].data) {
				t.Errorf("%s: reply %d is %#x %q, want %#x %q", tc.what, i, got[i].typ, got[i].data, tc.want[i].typ, tc.want[i].data)
			}
			if isError && len(got[i].data) == 0 {
				t.Errorf("%s: an error without a text", tc.what)
			}
		}
	}
	c.closed()
}

func TestExportNameAfterExtendedHeaders(t *testing.T) {
	c := newRig(t, nil).dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.ack(nbdproto.OptExtendedHeaders, nil)
	c.write(option(nbdproto.OptExportName, []byte("disk")))
	c.closed()
}

// TestContextsOfAnotherExport selects contexts for one export and goes to another.
func TestContextsOfAnotherExport(t *testing.T) {
	c := newRig(t, nil).dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.mode = structured
	c.ack(nbdproto.OptStructuredReply, nil)
	c.setMeta("disk", "base:allocation")
	c.goTo("rom")
	if a := c.do(req{cmd: nbdproto.CmdBlockStatus, n: 4096}); a.errno != nbdproto.EInval {
		t.Errorf("block status: error %d, want EINVAL", a.errno)
	}
}

// TestGoOfLengthZero sends GO as the client of go-nbd does: its data are not counted in its length. Only clients
// that do not claim fixed newstyle get away with it.
func TestGoOfLengthZero(t *testing.T) {
	c := newRig(t, nil).dial(t)
	c.greet(0)
	c.write(option(nbdproto.OptGo, nil))
	c.write(str("disk"))
	c.write([]byte{0, 0})
	if r := c.optReplies(nbdproto.OptGo); r[len(r)-1].typ != nbdproto.RepAck {
		t.Fatalf("GO: %x", r)
	}
	c.ok(req{cmd: nbdproto.CmdRead, n: 4096})
}
