package nbd

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
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
		{"disk", flagFixedNewstyle, 124, diskFlags},
		{"disk", flagFixedNewstyle | flagNoZeroes, 0, diskFlags},
		{"disk", 0, 124, diskFlags},
		{"", flagNoZeroes, 0, diskFlags},
		{"rom", flagNoZeroes, 0, romFlags},
	} {
		c := r.dial(t)
		c.greet(tc.flags)
		c.write(option(optExportName, []byte(tc.name)))
		want := binary.BigEndian.AppendUint64(nil, testSize)
		want = binary.BigEndian.AppendUint16(want, tc.want)
		want = append(want, make([]byte, tc.pad)...)
		if got := c.read(len(want)); !bytes.Equal(got, want) {
			t.Errorf("%+v: got %x, want %x", tc, got, want)
		}
		if a := c.ok(req{cmd: cmdRead, cookie: 7, n: 512}); !bytes.Equal(a.data, make([]byte, 512)) {
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
		"wrong option magic":      append([]byte{0, 0, 0, 3}, bytes.ToLower(option(optList, nil))...),
		"unknown export name":     append([]byte{0, 0, 0, 3}, option(optExportName, []byte("nope"))...),
		"export name not UTF-8":   append([]byte{0, 0, 0, 3}, option(optExportName, []byte{0xff})...),
		"export name too long":    append([]byte{0, 0, 0, 3}, option(optExportName, make([]byte, maxOption+1))...),
		"option too long":         append([]byte{0, 0, 0, 3}, long...),
		"GO of length 0 and long": append([]byte{0, 0, 0, 0}, append(option(optGo, nil), 0, 1, 0, 0)...),
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
	c.greet(flagFixedNewstyle | flagNoZeroes)

	export := func(flags uint16) optReply {
		p := binary.BigEndian.AppendUint64([]byte{0, infoExport}, testSize)
		return optReply{repInfo, binary.BigEndian.AppendUint16(p, flags)}
	}
	blockSize := optReply{repInfo, []byte{0, infoBlockSize, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0}}
	ack := optReply{typ: repAck}
	refused := func(typ uint32) []optReply { return []optReply{{typ: typ}} }
	infos := func(flags uint16, more ...optReply) []optReply {
		return append(append([]optReply{export(flags), blockSize}, more...), ack)
	}
	allocation := func(id uint32) []optReply {
		return []optReply{{repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), "base:allocation"...)}, ack}
	}
	infoName := optReply{repInfo, append([]byte{0, infoName}, "disk"...)}
	infoText := optReply{repInfo, append([]byte{0, infoDescription}, about["disk"]...)}
	short := str("disk")

	for _, tc := range []struct {
		what string
		opt  uint32
		data []byte
		want []optReply
	}{
		{"list", optList, nil, []optReply{
			{repServer, append(str("disk"), about["disk"]...)}, {repServer, str("rom")}, ack}},
		{"list with data", optList, []byte{1}, refused(repErrInvalid)},
		{"unknown option", 4242, []byte("data"), refused(repErrUnsup)},
		{"peek export", 4, nil, refused(repErrUnsup)},
		{"option too big", 4242, make([]byte, maxOption+1), refused(repErrTooBig)},
		{"list too big", optList, make([]byte, maxOption+1), refused(repErrTooBig)},
		{"starttls without TLS", optStartTLS, nil, refused(repErrPolicy)},

		{"info", optInfo, infoData("disk"), infos(diskFlags)},
		{"info of the default", optInfo, infoData("", 1, 2, 3), infos(diskFlags, infoName, infoText)},
		{"info, asked in another order, twice, and unknown", optInfo, infoData("disk", 2, 2, 3, 0, 77, 1), infos(diskFlags, infoText, infoName)},
		{"info of a read-only export", optInfo, infoData("rom"), infos(romFlags)},
		{"info of none", optInfo, infoData("nope"), refused(repErrUnknown)},
		{"info without data", optInfo, nil, refused(repErrInvalid)},
		{"info cut short", optInfo, short, refused(repErrInvalid)},
		{"info with a long name", optInfo, append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 10)...), refused(repErrInvalid)},
		{"info with fewer requests than said", optInfo, append(short, 0, 2, 0, 1), refused(repErrInvalid)},
		{"info with more requests than said", optInfo, append(short, 0, 0, 0, 1), refused(repErrInvalid)},
		{"info of a name with NUL", optInfo, infoData("di\x00sk"), refused(repErrInvalid)},
		{"info of a name too long", optInfo, infoData(strings.Repeat("x", maxString+1)), refused(repErrInvalid)},
		{"go to none", optGo, infoData("nope"), refused(repErrUnknown)},
		{"go without data", optGo, nil, refused(repErrInvalid)},

		{"list contexts too early", optListMetaContext, metaData("disk"), refused(repErrInvalid)},
		{"set contexts too early", optSetMetaContext, metaData("disk", "base:allocation"), refused(repErrInvalid)},
		{"structured replies with data", optStructuredReply, []byte{0}, refused(repErrInvalid)},
		{"structured replies", optStructuredReply, nil, refused(repAck)},
		{"structured replies again", optStructuredReply, nil, refused(repAck)},
		{"info with DF", optInfo, infoData("disk"), infos(diskFlags | 0x80)},

		{"all contexts", optListMetaContext, metaData("disk"), allocation(0)},
		{"contexts by wildcard", optListMetaContext, metaData("disk", "base:"), allocation(0)},
		{"context by name, twice", optListMetaContext, metaData("disk", "base:allocation", "base:allocation"), allocation(0)},
		{"unknown leaf", optListMetaContext, metaData("disk", "base:other"), refused(repAck)},
		{"unknown namespace", optListMetaContext, metaData("disk", "qemu:dirty-bitmap:x", "x-y:"), refused(repAck)},
		{"contexts of none", optListMetaContext, metaData("nope"), refused(repErrUnknown)},
		{"query without a colon", optListMetaContext, metaData("disk", "base"), refused(repErrInvalid)},
		{"query without a namespace", optListMetaContext, metaData("disk", ":x"), refused(repErrInvalid)},
		{"empty query", optListMetaContext, metaData("disk", ""), refused(repErrInvalid)},
		{"query count missing", optListMetaContext, short, refused(repErrInvalid)},
		{"queries missing", optListMetaContext, append(str("disk"), 0xff, 0xff, 0xff, 0xff), refused(repErrInvalid)},
		{"query cut short", optSetMetaContext, append(str("disk"), 0, 0, 0, 1, 0, 0, 0, 9, 'b'), refused(repErrInvalid)},
		{"data after the queries", optSetMetaContext, append(metaData("disk", "base:allocation"), 0), refused(repErrInvalid)},
		{"name of contexts too long", optSetMetaContext, []byte{0, 0, 0, 9, 'x'}, refused(repErrInvalid)},
		{"set none", optSetMetaContext, metaData("disk"), refused(repAck)},
		{"set by wildcard", optSetMetaContext, metaData("disk", "base:"), refused(repAck)},
		{"set unknown", optSetMetaContext, metaData("disk", "base:other", "x-z:1"), refused(repAck)},
		{"set", optSetMetaContext, metaData("disk", "x-z:1", "base:allocation"), allocation(1)},

		{"extended headers with data", optExtendedHeaders, []byte{0}, refused(repErrInvalid)},
		{"extended headers", optExtendedHeaders, nil, refused(repAck)},
		{"structured after extended", optStructuredReply, nil, refused(repErrExtHeaderReqd)},
		{"info with status payload", optInfo, infoData("disk"), infos(diskFlags | 0x80 | 0x1000)},
		{"info of another export", optInfo, infoData("rom"), infos(romFlags | 0x80)},
		{"failed set forgets", optSetMetaContext, metaData("disk", "base"), refused(repErrInvalid)},
		{"info without contexts", optInfo, infoData("disk"), infos(diskFlags | 0x80)},
		{"abort with data", optAbort, []byte("bye"), refused(repAck)},
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
	c.greet(flagFixedNewstyle)
	c.ack(optExtendedHeaders, nil)
	c.write(option(optExportName, []byte("disk")))
	c.closed()
}

// TestContextsOfAnotherExport selects contexts for one export and goes to another.
func TestContextsOfAnotherExport(t *testing.T) {
	c := newRig(t, nil).dial(t)
	c.greet(flagFixedNewstyle)
	c.mode = structured
	c.ack(optStructuredReply, nil)
	c.setMeta("disk", "base:allocation")
	c.goTo("rom")
	if a := c.do(req{cmd: cmdBlockStatus, n: 4096}); a.errno != eInval {
		t.Errorf("block status: error %d, want EINVAL", a.errno)
	}
}

// TestGoOfLengthZero sends GO as the client of go-nbd does: its data are not counted in its length. Only clients
// that do not claim fixed newstyle get away with it.
func TestGoOfLengthZero(t *testing.T) {
	c := newRig(t, nil).dial(t)
	c.greet(0)
	c.write(option(optGo, nil))
	c.write(str("disk"))
	c.write([]byte{0, 0})
	if r := c.optReplies(optGo); r[len(r)-1].typ != repAck {
		t.Fatalf("GO: %x", r)
	}
	c.ok(req{cmd: cmdRead, n: 4096})
}
