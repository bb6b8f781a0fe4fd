package nbdclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

var greeting = words(uint64(nbdproto.MagicInit), uint64(nbdproto.MagicOption), uint16(nbdproto.FlagFixedNewstyle|nbdproto.FlagNoZeroes))

func optReply(opt, typ uint32, data ...any) []byte {
	p := words(data...)
	return words(uint64(nbdproto.MagicOptionReply), opt, typ, uint32(len(p)), p)
}

func exportInfo(size uint64) []byte {
	return optReply(nbdproto.OptGo, nbdproto.RepInfo, uint16(nbdproto.InfoExport), size, uint16(nbdproto.FlagHasFlags|nbdproto.FlagReadOnly))
}

func join(parts ...[]byte) []byte {
	var p []byte
	for _, q := range parts {
		p = append(p, q...)
	}
	return p
}

// answers sends what was prepared whatever the client says, which the client cannot tell from a server that waits.
func (f *fake) answers(p []byte) {
	go io.Copy(io.Discard, f.conn)
	f.conn.Write(p)
	f.conn.(*net.UnixConn).CloseWrite()
}

func TestHandshake(t *testing.T) {
	ack := optReply(nbdproto.OptGo, nbdproto.RepAck)
	tests := []struct {
		name string
		sent []byte
		want error
		text string
	}{
		{"silence", nil, ErrDisconnected, "EOF"},
		{"another protocol", []byte("SSH-2.0-OpenSSH_9.2p1"), ErrProtocol, "not NBD"},
		{"old style", words(uint64(nbdproto.MagicInit), uint64(0x420281861253), make([]byte, 136)), ErrProtocol, "old style"},
		{"not fixed", words(uint64(nbdproto.MagicInit), uint64(nbdproto.MagicOption), uint16(2)), ErrProtocol, "fixed newstyle"},
		{"unknown export", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepErrUnknown, "no \x1b[1mvm")), ErrUnknownExport, "no  [1mvm"},
		{"TLS required", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepErrTLSReqd)), ErrTLS, "nbds://"},
		{"shutting down", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepErrShutdown)), ErrRefused, "shutting down"},
		{"no GO", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepErrUnsup)), ErrRefused, "not supported"},
		{"no size", join(greeting, ack), ErrProtocol, "size"},
		{"negative size", join(greeting, exportInfo(1<<63), ack), ErrProtocol, "9223372036854775808"},
		{"other option", join(greeting, optReply(nbdproto.OptStartTLS, nbdproto.RepAck)), ErrProtocol, "option 5"},
		{"wrong magic", join(greeting, words(uint64(1), uint64(2), uint32(3))), ErrProtocol, "magic"},
		{"long reply", join(greeting, words(uint64(nbdproto.MagicOptionReply), uint32(nbdproto.OptGo), uint32(nbdproto.RepInfo), uint32(1<<31))), ErrProtocol, "2147483648"},
		{"short info", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepInfo, uint8(0))), ErrProtocol, "1 bytes"},
		{"endless info", join(greeting, []byte(strings.Repeat(string(exportInfo(1)), 100))), ErrProtocol, "more than 64"},
		{"block sizes", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepInfo, uint16(nbdproto.InfoBlockSize), uint32(3), uint32(4), uint32(8)), ack), ErrProtocol, "block sizes 3"},
		{"block size order", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepInfo, uint16(nbdproto.InfoBlockSize), uint32(4096), uint32(512), uint32(8192)), ack), ErrProtocol, "block sizes 4096"},
		{"acknowledged with data", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepAck, "x")), ErrProtocol, "1 bytes"},
		{"good", join(greeting, optReply(nbdproto.OptGo, nbdproto.RepInfo, uint16(99), "later"), exportInfo(12345), optReply(nbdproto.OptGo, nbdproto.RepInfo, uint16(nbdproto.InfoDescription), "a vm"),
			optReply(nbdproto.OptGo, nbdproto.RepInfo, uint16(nbdproto.InfoBlockSize), uint32(512), uint32(4096), uint32(1<<32-1)), ack), nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, f := pair(t)
			go f.answers(test.sent)
			info, err := Handshake(within(t), conn, Options{Export: "vm"})
			if test.want == nil {
				if err != nil || info.Size != 12345 || !info.ReadOnly() || info.MinBlock != 512 || info.Description != "a vm" || info.Structured {
					t.Errorf("got %+v, %v", info, err)
				}
			} else if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
		})
	}
}

// A server may have all, some or none of the features.
func TestFeatures(t *testing.T) {
	end := join(exportInfo(4096), optReply(nbdproto.OptGo, nbdproto.RepAck))
	context := optReply(nbdproto.OptSetMetaContext, nbdproto.RepMetaContext, uint32(3), nbdproto.ContextAllocation)
	tests := []struct {
		name                             string
		sent                             []byte
		structured, extended, allocation bool
	}{
		{"all", join(optReply(nbdproto.OptExtendedHeaders, nbdproto.RepAck), context, optReply(nbdproto.OptSetMetaContext, nbdproto.RepAck)), true, true, true},
		{"no extended", join(optReply(nbdproto.OptExtendedHeaders, nbdproto.RepErrUnsup), optReply(nbdproto.OptStructuredReply, nbdproto.RepAck), context, optReply(nbdproto.OptSetMetaContext, nbdproto.RepAck)), true, false, true},
		{"no contexts", join(optReply(nbdproto.OptExtendedHeaders, nbdproto.RepErrUnsup), optReply(nbdproto.OptStructuredReply, nbdproto.RepAck), optReply(nbdproto.OptSetMetaContext, nbdproto.RepErrUnsup)), true, false, false},
		{"no such context", join(optReply(nbdproto.OptExtendedHeaders, nbdproto.RepErrUnsup), optReply(nbdproto.OptStructuredReply, nbdproto.RepAck), optReply(nbdproto.OptSetMetaContext, nbdproto.RepAck)), true, false, false},
		{"none", join(optReply(nbdproto.OptExtendedHeaders, nbdproto.RepErrUnsup), optReply(nbdproto.OptStructuredReply, nbdproto.RepErrPolicy)), false, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, f := pair(t)
			go f.answers(join(greeting, test.sent, end, []byte("beyond")))
			info, err := Handshake(within(t), conn, Options{Export: "vm", Allocation: true, Extended: true})
			if err != nil || info.Structured != test.structured || info.Extended != test.extended || info.Allocation != test.allocation {
				t.Fatalf("got %+v, %v", info, err)
			}
			p := make([]byte, 6)
			if _, err := io.ReadFull(conn, p); err != nil || string(p) != "beyond" {
				t.Errorf("what follows the negotiation: %q, %v", p, err)
			}
		})
	}
	t.Run("another context", func(t *testing.T) {
		conn, f := pair(t)
		go f.answers(join(greeting, optReply(nbdproto.OptStructuredReply, nbdproto.RepAck), optReply(nbdproto.OptSetMetaContext, nbdproto.RepMetaContext, uint32(1), "qemu:x"), optReply(nbdproto.OptSetMetaContext, nbdproto.RepAck), end))
		if _, err := Handshake(within(t), conn, Options{Allocation: true}); !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	})
}

func TestHandshakeCancelled(t *testing.T) {
	conn, f := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		f.conn.Write(greeting)
		io.ReadFull(f.conn, make([]byte, 8))
		cancel()
	}()
	begin := time.Now()
	if _, err := Handshake(ctx, conn, Options{}); !errors.Is(err, context.Canceled) || time.Since(begin) > patience {
		t.Errorf("got %v", err)
	}
}

// scripted is a connection on which a server has said all it will say.
type scripted struct {
	net.Conn
	from io.Reader
}

func (s scripted) Read(p []byte) (int, error)       { return s.from.Read(p) }
func (s scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (s scripted) Close() error                     { return nil }
func (s scripted) SetDeadline(time.Time) error      { return nil }
func (s scripted) SetWriteDeadline(time.Time) error { return nil }

func FuzzHandshake(f *testing.F) {
	f.Add(join(greeting, optReply(nbdproto.OptExtendedHeaders, nbdproto.RepAck), optReply(nbdproto.OptSetMetaContext, nbdproto.RepAck), exportInfo(1), optReply(nbdproto.OptGo, nbdproto.RepAck)))
	f.Add(join(greeting, optReply(nbdproto.OptGo, nbdproto.RepErrUnknown, "no")))
	f.Fuzz(func(t *testing.T, p []byte) {
		info, err := Handshake(context.Background(), scripted{from: strings.NewReader(string(p))}, Options{Export: "x", Allocation: true, Extended: true})
		if err == nil && (info.Size < 0 || info.MinBlock == 0 || info.Extended && !info.Structured) {
			t.Errorf("%+v", info)
		}
	})
}

// FuzzReplies has a server send anything while a request waits. Where the input has a reply's magic the cookie is made
// right, so that most replies find the request.
func FuzzReplies(f *testing.F) {
	r := request{cookie: 1 << 8, off: 0, n: 4096}
	for _, m := range []mode{simple, structured, extended} {
		f.Add(uint8(m), chunkOf(m, r, 1, nbdproto.ReplyOffsetHole, uint64(0), uint32(4096)))
		f.Add(uint8(m), chunkOf(m, r, 1, nbdproto.ReplyError, uint32(5), uint16(2), "no"))
		f.Add(uint8(m), simpleReply(r, 0, make([]byte, 4096)))
		f.Add(uint8(m), chunkOf(m, r, 1, nbdproto.ReplyBlockStatus, uint32(7), uint32(4096), uint32(3)))
		f.Add(uint8(m), chunkOf(m, r, 1, nbdproto.ReplyBlockStatusExt, uint32(7), uint32(1), uint64(4096), uint64(3)))
	}
	f.Fuzz(func(t *testing.T, which uint8, p []byte) {
		near, far := net.Pipe()
		c := NewClient(mode(which%3).info(near), ClientOptions{})
		go func() {
			io.ReadFull(far, make([]byte, nbdproto.RequestSize))
			go io.Copy(io.Discard, far)
			p := bytes.Clone(p) // the input must not change
			for i := 0; i+16 <= len(p); i++ {
				switch binary.BigEndian.Uint32(p[i:]) {
				case nbdproto.MagicSimpleReply, nbdproto.MagicStructuredReply, nbdproto.MagicExtendedReply:
					binary.BigEndian.PutUint64(p[i+8:], 1<<8)
				}
			}
			far.Write(p)
			far.Close()
		}()
		status := which&4 != 0
		if status {
			extents, err := c.BlockStatus(context.Background(), 0, 4096, nil)
			sum := int64(0)
			for _, e := range extents {
				if e.Length <= 0 {
					t.Errorf("%v", extents)
				}
				sum += e.Length
			}
			if err == nil && (sum == 0 || sum > 4096) {
				t.Errorf("%v", extents)
			}
		} else if err := c.ReadAt(context.Background(), make([]byte, 4096), 0); err == nil && len(p) < 28 {
			t.Error("a read from next to nothing")
		}
		c.Close()
	})
}
