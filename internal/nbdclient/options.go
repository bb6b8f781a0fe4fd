package nbdclient

import (
	"encoding/binary"
	"errors"
	"fmt"

	"lsad/internal/nbdproto"
)

const (
	// maxOptionReply bounds one option reply, in bytes; the longest legal one is two strings.
	maxOptionReply = 2*nbdproto.MaxString + 64
	// maxOptionReplies bounds how many come for one option.
	maxOptionReplies = 64
)

// optionError is an error reply.
type optionError struct {
	opt, typ uint32
	text     string
}

func (e *optionError) Error() string {
	s := fmt.Sprintf("%s answered with %s", optionName(e.opt), optionErrorName(e.typ))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *optionError) Unwrap() error {
	switch e.typ {
	case nbdproto.RepErrUnknown:
		return ErrUnknownExport
	case nbdproto.RepErrTLSReqd:
		return ErrTLS
	}
	return ErrRefused
}

// refusedFeature says whether the answer means no more than that the server does not have, or want, a feature.
func refusedFeature(err error) bool {
	var e *optionError
	return errors.As(err, &e) && (e.typ == nbdproto.RepErrUnsup || e.typ == nbdproto.RepErrPolicy || e.typ == nbdproto.RepErrInvalid)
}

// ask sends an option and reads its replies up to the acknowledgement. Every other reply that is no error goes to
// each (unless nil), which ignores types that it does not know.
func (h *handshake) ask(opt uint32, data []byte, each func(typ uint32, data []byte) error) error {
	p := binary.BigEndian.AppendUint64(nil, nbdproto.MagicOption)
	p = binary.BigEndian.AppendUint32(p, opt)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	if err := h.write(append(p, data...)); err != nil {
		return err
	}
	for range maxOptionReplies {
		typ, data, err := h.optionReply(opt)
		switch {
		case err != nil:
			return err
		case typ == nbdproto.RepAck:
			if len(data) != 0 {
				return protocolError("an acknowledgement with %d bytes of data", len(data))
			}
			return nil
		case typ&nbdproto.RepError != 0:
			return &optionError{opt, typ, printable(data)}
		case each == nil:
			return protocolError("%s answered with type %d", optionName(opt), typ)
		}
		if err := each(typ, data); err != nil {
			return err
		}
	}
	return protocolError("more than %d replies to %s", maxOptionReplies, optionName(opt))
}

func (h *handshake) optionReply(opt uint32) (typ uint32, data []byte, err error) {
	var head [20]byte
	if err := h.read(head[:]); err != nil {
		return 0, nil, err
	}
	if m := binary.BigEndian.Uint64(head[:]); m != nbdproto.MagicOptionReply {
		return 0, nil, protocolError("option reply magic %#x", m)
	}
	if o := binary.BigEndian.Uint32(head[8:]); o != opt {
		return 0, nil, protocolError("a reply to option %d where option %d was sent", o, opt)
	}
	n := binary.BigEndian.Uint32(head[16:])
	if n > maxOptionReply {
		return 0, nil, protocolError("an option reply of %d bytes", n)
	}
	data = make([]byte, n)
	return binary.BigEndian.Uint32(head[12:]), data, h.read(data)
}

func optionName(opt uint32) string {
	switch opt {
	case nbdproto.OptStartTLS:
		return "STARTTLS"
	case nbdproto.OptGo:
		return "GO"
	case nbdproto.OptStructuredReply:
		return "STRUCTURED_REPLY"
	case nbdproto.OptSetMetaContext:
		return "SET_META_CONTEXT"
	case nbdproto.OptExtendedHeaders:
		return "EXTENDED_HEADERS"
	}
	return fmt.Sprintf("option %d", opt)
}

func optionErrorName(typ uint32) string {
	switch typ {
	case nbdproto.RepErrUnsup:
		return "not supported"
	case nbdproto.RepErrPolicy:
		return "not allowed"
	case nbdproto.RepErrInvalid:
		return "invalid"
	case nbdproto.RepErrTLSReqd:
		return "TLS is required (nbds://)"
	case nbdproto.RepErrUnknown:
		return "unknown export"
	case nbdproto.RepErrShutdown:
		return "shutting down"
	case nbdproto.RepErrBlockSizeReq:
		return "block sizes must be heeded"
	case nbdproto.RepErrTooBig:
		return "too big"
	}
	return fmt.Sprintf("error %#x", typ)
}
