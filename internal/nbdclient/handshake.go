package nbdclient

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"lsad/internal/nbdproto"
)

// Options say what to negotiate. With no more than Export set, the outcome is what the kernel's client speaks: simple
// replies and no contexts.
type Options struct {
	Export     string      // at most 4096 bytes; "" is the server's default
	TLS        *tls.Config // nil for none; there is no falling back
	Allocation bool        // structured replies and base:allocation, where offered
	Extended   bool        // extended headers, where offered; only together with Allocation
}

// Info is the outcome of a negotiation.
type Info struct {
	// Conn is the connection to go on with: the one given to Handshake, or TLS over it.
	Conn net.Conn

	Size  int64  // bytes
	Flags uint16 // FlagHasFlags and so on

	// Name and Description are the server's, made printable; "" where it tells none.
	Name, Description string

	// Requests must be multiples of MinBlock, in bytes, a power of two to 64 KiB; they are best multiples of
	// PreferredBlock, and payloads are at most MaxBlock long.
	MinBlock, PreferredBlock, MaxBlock uint32

	Structured bool // replies are structured
	Extended   bool // headers are extended, and so all replies structured
	Allocation bool // block status tells base:allocation

	context uint32 // its id
}

// ReadOnly says whether the server refuses writes.
func (i *Info) ReadOnly() bool { return i.Flags&nbdproto.FlagReadOnly != 0 }

// handshake is a negotiation under way. Messages are read exactly, never ahead.
type handshake struct {
	conn net.Conn
	o    Options
	info Info
}

// Handshake negotiates an export on a new connection, up to where requests begin. The context ends it early. On an
// error the connection is of no more use, and the caller closes it. Errors are ErrUnknownExport, ErrTLS, ErrRefused,
// ErrProtocol, or those of the connection, which are ErrDisconnected too.
func Handshake(ctx context.Context, conn net.Conn, o Options) (Info, error) {
	if len(o.Export) > nbdproto.MaxString {
		return Info{}, fmt.Errorf("export name of %d bytes: at most %d are possible: %w", len(o.Export), nbdproto.MaxString, ErrUnknownExport)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	h := &handshake{conn: conn, o: o}
	h.info.MinBlock, h.info.PreferredBlock, h.info.MaxBlock = 1, 4096, nbdproto.MaxPayload
	err := h.run(ctx)
	if !stop() && err == nil {
		err = ctx.Err() // the deadline may be set at any moment
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: negotiation: %w", ErrDisconnected, ctx.Err())
		}
		return Info{}, err
	}
	h.info.Conn = h.conn
	return h.info, nil
}

func (h *handshake) run(ctx context.Context) error {
	if err := h.greet(); err != nil {
		return err
	}
	if h.o.TLS != nil {
		if err := h.startTLS(ctx); err != nil {
			return err
		}
	}
	if h.o.Allocation {
		if err := h.structured(); err != nil {
			return err
		}
	}
	return h.enter()
}

// lost makes an error of the connection ErrDisconnected.
func lost(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDisconnected, err)
}

func (h *handshake) read(p []byte) error {
	_, err := io.ReadFull(h.conn, p)
	return lost(err)
}

func (h *handshake) write(p []byte) error {
	_, err := h.conn.Write(p)
	return lost(err)
}

// greet exchanges flags. The old style, which has no options, is refused.
func (h *handshake) greet() error {
	var hello [18]byte
	if err := h.read(hello[:16]); err != nil {
		return err
	}
	if m := binary.BigEndian.Uint64(hello[:]); m != nbdproto.MagicInit {
		return protocolError("it greets with %#x, which is not NBD", m)
	}
	if m := binary.BigEndian.Uint64(hello[8:]); m != nbdproto.MagicOption {
		return protocolError("option magic %#x; servers of the old style are not supported", m)
	}
	if err := h.read(hello[16:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if flags&nbdproto.FlagFixedNewstyle == 0 {
		return protocolError("it does not offer the fixed newstyle negotiation")
	}
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], uint32(flags&(nbdproto.FlagFixedNewstyle|nbdproto.FlagNoZeroes)))
	return h.write(out[:])
}

func (h *handshake) startTLS(ctx context.Context) error {
	err := h.ask(nbdproto.OptStartTLS, nil, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	t := tls.Client(h.conn, h.o.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	h.conn = t
	return nil
}

// structured asks for extended headers or structured replies, then for block status.
func (h *handshake) structured() error {
	var err error
	if h.o.Extended {
		if h.info.Extended, err = h.offered(nbdproto.OptExtendedHeaders); err != nil {
			return err
		}
	}
	h.info.Structured = h.info.Extended
	if !h.info.Structured {
		if h.info.Structured, err = h.offered(nbdproto.OptStructuredReply); err != nil || !h.info.Structured {
			return err
		}
	}
	return h.setContext()
}

// offered turns on a feature that the server may not have.
func (h *handshake) offered(opt uint32) (bool, error) {
	err := h.ask(opt, nil, nil)
	if refusedFeature(err) {
		return false, nil
	}
	return err == nil, err
}

func (h *handshake) setContext() error {
	p := appendString(nil, h.o.Export)
	p = binary.BigEndian.AppendUint32(p, 1)
	p = appendString(p, nbdproto.ContextAllocation)
	err := h.ask(nbdproto.OptSetMetaContext, p, func(typ uint32, p []byte) error {
		if typ != nbdproto.RepMetaContext {
			return nil
		}
		if len(p) < 4 || string(p[4:]) != nbdproto.ContextAllocation || h.info.Allocation {
			return protocolError("it selects the context %q, which was not asked for", printable(p[min(4, len(p)):]))
		}
		h.info.Allocation, h.info.context = true, binary.BigEndian.Uint32(p)
		return nil
	})
	if refusedFeature(err) {
		h.info.Allocation = false
		return nil
	}
	return err
}

// enter asks for the export, and so ends the negotiation.
func (h *handshake) enter() error {
	p := appendString(nil, h.o.Export)
	p = binary.BigEndian.AppendUint16(p, 3)
	for _, want := range []uint16{nbdproto.InfoName, nbdproto.InfoDescription, nbdproto.InfoBlockSize} {
		p = binary.BigEndian.AppendUint16(p, want)
	}
	told := false
	err := h.ask(nbdproto.OptGo, p, func(typ uint32, p []byte) error {
		if typ != nbdproto.RepInfo {
			return nil
		}
		export, err := h.info.take(p)
		told = told || export
		return err
	})
	if err == nil && !told {
		err = protocolError("it does not tell the export's size")
	}
	return err
}

// take reads one piece of information, and says whether it was the export's size and flags.
func (i *Info) take(p []byte) (export bool, err error) {
	if len(p) < 2 {
		return false, protocolError("information of %d bytes", len(p))
	}
	typ := binary.BigEndian.Uint16(p)
	p = p[2:]
	switch typ {
	case nbdproto.InfoExport:
		if len(p) != 10 {
			return false, protocolError("export information of %d bytes", len(p))
		}
		size := binary.BigEndian.Uint64(p)
		if size > 1<<63-1 {
			return false, protocolError("an export of %d bytes", size)
		}
		i.Size, i.Flags = int64(size), binary.BigEndian.Uint16(p[8:])
		return true, nil
	case nbdproto.InfoName:
		i.Name = printable(p)
	case nbdproto.InfoDescription:
		i.Description = printable(p)
	case nbdproto.InfoBlockSize:
		return false, i.takeBlockSizes(p)
	}
	return false, nil
}

// takeBlockSizes checks what the specification demands of them.
func (i *Info) takeBlockSizes(p []byte) error {
	if len(p) != 12 {
		return protocolError("block sizes of %d bytes", len(p))
	}
	least, best, most := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:])
	power := func(v uint32) bool { return v != 0 && v&(v-1) == 0 }
	if !power(least) || least > 64<<10 || !power(best) || best < least || most < least || most != 1<<32-1 && most%least != 0 {
		return protocolError("block sizes %d, %d and %d", least, best, most)
	}
	i.MinBlock, i.PreferredBlock, i.MaxBlock = least, best, most
	return nil
}

func appendString(p []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(p, uint32(len(s))), s...)
}
