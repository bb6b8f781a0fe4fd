package nbdclient

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

const patience = time.Minute

// fake is the server's side of a connection, driven by a test.
type fake struct {
	t    testing.TB
	conn net.Conn
}

// pair returns two ends of a unix socket, which buffers as a real one does.
func pair(t testing.TB) (net.Conn, *fake) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, &fake{t, server}
}

// words builds a message of big-endian numbers and bytes.
func words(parts ...any) []byte {
	var p []byte
	for _, part := range parts {
		switch v := part.(type) {
		case uint8:
			p = append(p, v)
		case uint16:
			p = binary.BigEndian.AppendUint16(p, v)
		case uint32:
			p = binary.BigEndian.AppendUint32(p, v)
		case uint64:
			p = binary.BigEndian.AppendUint64(p, v)
		case string:
			p = append(p, v...)
		case []byte:
			p = append(p, v...)
		default:
			panic("words: type")
		}
	}
	return p
}

func (f *fake) send(parts ...any) { f.conn.Write(words(parts...)) }

// request is what the client asked.
type request struct {
	cmd    uint16
	cookie uint64
	off, n uint64
}

func (f *fake) request(extended bool) (request, error) {
	size := nbdproto.RequestSize
	if extended {
		size = nbdproto.ExtendedRequestSize
	}
	p := make([]byte, size)
	if _, err := io.ReadFull(f.conn, p); err != nil {
		return request{}, err
	}
	r := request{binary.BigEndian.Uint16(p[6:]), binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:]), 0}
	magic := uint32(nbdproto.MagicRequest)
	if extended {
		magic, r.n = nbdproto.MagicExtendedRequest, binary.BigEndian.Uint64(p[24:])
	} else {
		r.n = uint64(binary.BigEndian.Uint32(p[24:]))
	}
	if binary.BigEndian.Uint32(p) != magic {
		return r, errors.New("wrong request magic")
	}
	return r, nil
}

// mode is what was negotiated.
type mode int

const (
	simple mode = iota
	structured
	extended
)

func (m mode) info(conn net.Conn) Info {
	return Info{
		Conn: conn, Size: 1 << 20, MinBlock: 1, PreferredBlock: 4096, MaxBlock: 32 << 20,
		Structured: m >= structured, Extended: m == extended, Allocation: m >= structured, context: 7,
	}
}

// rig is a client in a mode and the fake server it talks to.
func rig(t testing.TB, m mode) (*Client, *fake) {
	t.Helper()
	conn, f := pair(t)
	c := NewClient(m.info(conn), ClientOptions{StallTimeout: patience})
	t.Cleanup(func() { c.Close() })
	return c, f
}

func simpleReply(r request, code uint32, data []byte) []byte {
	return words(uint32(nbdproto.MagicSimpleReply), code, r.cookie, data)
}

func chunkOf(m mode, r request, flags, typ uint16, payload ...any) []byte {
	p := words(payload...)
	if m == extended {
		return words(uint32(nbdproto.MagicExtendedReply), flags, typ, r.cookie, r.off, uint64(len(p)), p)
	}
	return words(uint32(nbdproto.MagicStructuredReply), flags, typ, r.cookie, uint32(len(p)), p)
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
