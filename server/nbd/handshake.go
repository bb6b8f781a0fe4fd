package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"lsad/internal/nbdproto"
)

const (
	// maxOption bounds the data of an option that is looked at, in bytes; a longer one is answered TOO_BIG.
	maxOption = 64 << 10
	// maxSkippedOption bounds the data of an option that is passed over, in bytes. More ends the connection.
	maxSkippedOption = 1 << 20
)

// handshake is the negotiation on one connection. Messages are read exactly, never ahead: what follows the
// last one belongs to another layer (TLS) or phase.
type handshake struct {
	c        *conn
	flags    uint32 // of the client
	tls      bool
	sess     session
	metaFor  string // the export that the metadata contexts were selected for
	data     []byte // of the current option
	out      []byte // replies not yet sent
	export   Export // set when transmission begins
	name     string // canonical name of export
	finished bool
}

// negotiate runs the handshake. On return c.export is what the client chose, nil if it left without.
func (c *conn) negotiate() (name string, err error) {
	h := &handshake{c: c}
	if err := h.run(); err != nil {
		if c.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			return "", errDraining
		}
		return "", err
	}
	c.export, c.sess = h.export, h.sess
	return h.name, nil
}

func (h *handshake) run() error {
	if err := h.greet(); err != nil {
		return err
	}
	for !h.finished {
		opt, err := h.readOption()
		if err != nil {
			return err
		}
		if err := h.answer(opt); err != nil {
			h.dropExport()
			return err
		}
		if err := h.send(); err != nil {
			h.dropExport()
			return goneAtOnce(err) // many clients do not wait for the answer to their ABORT
		}
	}
	return nil
}

// dropExport closes an export that the client will not get.
func (h *handshake) dropExport() {
	if h.export != nil {
		h.export.Close()
		h.export = nil
	}
}

func (h *handshake) greet() error {
	var hello [18]byte
	binary.BigEndian.PutUint64(hello[0:], nbdproto.MagicInit)
	binary.BigEndian.PutUint64(hello[8:], nbdproto.MagicOption)
	binary.BigEndian.PutUint16(hello[16:], nbdproto.FlagFixedNewstyle|nbdproto.FlagNoZeroes)
	if _, err := h.c.nc.Write(hello[:]); err != nil {
		return goneAtOnce(err)
	}
	var flags [4]byte
	if _, err := io.ReadFull(h.c.nc, flags[:]); err != nil {
		return goneAtOnce(err)
	}
	h.flags = binary.BigEndian.Uint32(flags[:])
	if unknown := h.flags &^ (nbdproto.FlagFixedNewstyle | nbdproto.FlagNoZeroes); unknown != 0 {
		return fmt.Errorf("unknown client flags %#x", unknown)
	}
	return nil
}

// goneAtOnce makes io.EOF of the errors that port scanners and health checks cause by connecting and leaving.
func goneAtOnce(err error) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return io.EOF
	}
	return err
}

// readOption reads the next option and its data. Data that is too long is passed over, and h.data nil.
func (h *handshake) readOption() (opt uint32, err error) {
	var head [16]byte
	if _, err := io.ReadFull(h.c.nc, head[:]); err != nil {
		return 0, goneAtOnce(err)
	}
	if magic := binary.BigEndian.Uint64(head[:]); magic != nbdproto.MagicOption {
		return 0, fmt.Errorf("wrong option magic %#x", magic)
	}
	opt = binary.BigEndian.Uint32(head[8:])
	n := binary.BigEndian.Uint32(head[12:])
	if n > maxOption {
		if n > maxSkippedOption {
			return 0, fmt.Errorf("option %d with %d bytes of data", opt, n)
		}
		h.data = nil
		_, err := io.CopyN(io.Discard, h.c.nc, int64(n))
		return opt, err
	}
	if int(n) > cap(h.data) {
		h.data = make([]byte, n)
	}
	h.data = h.data[:n]
	if h.data == nil {
		h.data = []byte{}
	}
	_, err = io.ReadFull(h.c.nc, h.data)
	return opt, err
}

// reply queues an option reply.
func (h *handshake) reply(opt, typ uint32, data ...[]byte) {
	n := 0
	for _, d := range data {
		n += len(d)
	}
	h.out = binary.BigEndian.AppendUint64(h.out, nbdproto.MagicOptionReply)
	h.out = binary.BigEndian.AppendUint32(h.out, opt)
	h.out = binary.BigEndian.AppendUint32(h.out, typ)
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(n))
	for _, d := range data {
		h.out = append(h.out, d...)
	}
}

// refuse queues an error reply with a text for people.
func (h *handshake) refuse(opt, typ uint32, format string, args ...any) {
	h.reply(opt, typ, []byte(errorText(fmt.Errorf(format, args...))))
}

func (h *handshake) send() error {
	if len(h.out) == 0 {
		return nil
	}
	_, err := h.c.nc.Write(h.out)
	h.out = h.out[:0]
	return err
}
