package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lsad/internal/nbdproto"
)

// transmissionFlags tells the client what it may do with an export.
func (h *handshake) transmissionFlags(e Export, name string) uint16 {
	flags := uint16(nbdproto.FlagHasFlags | nbdproto.FlagSendFlush | nbdproto.FlagSendFUA | nbdproto.FlagCanMultiConn | nbdproto.FlagSendCache)
	if e.ReadOnly() {
		flags |= nbdproto.FlagReadOnly
	} else {
		flags |= nbdproto.FlagSendTrim | nbdproto.FlagSendWriteZeroes | nbdproto.FlagSendFastZero
	}
	if h.sess.structured || h.sess.extended {
		flags |= nbdproto.FlagSendDF
	}
	if h.sess.extended && len(h.sess.contexts) > 0 && h.metaFor == name {
		flags |= nbdproto.FlagBlockStatusPayload
	}
	return flags
}

// begin ends the negotiation with e. Metadata contexts count only for the export that they were selected for.
func (h *handshake) begin(e Export, requested string) {
	if h.metaFor != requested {
		h.sess.contexts = nil
	}
	h.export, h.name = e, describe(e, requested).Name
	h.finished = true
}

// exportName answers EXPORT_NAME, which has no way to report an error but to hang up.
func (h *handshake) exportName() error {
	if h.sess.extended {
		return errors.New("EXPORT_NAME after extended headers were negotiated")
	}
	name := string(h.data)
	e, _, err := h.open(name)
	if err != nil {
		return err
	}
	h.out = binary.BigEndian.AppendUint64(h.out, uint64(e.Size()))
	h.out = binary.BigEndian.AppendUint16(h.out, h.transmissionFlags(e, name))
	if h.flags&nbdproto.FlagNoZeroes == 0 {
		h.out = append(h.out, make([]byte, 124)...)
	}
	h.begin(e, name)
	return nil
}

// info answers INFO and GO.
func (h *handshake) info(opt uint32) error {
	if err := h.repairGo(opt); err != nil {
		return err
	}
	name, wanted, err := parseInfo(h.data)
	if err != nil {
		h.refuse(opt, nbdproto.RepErrInvalid, "%w", err)
		return nil
	}
	e, rep, err := h.open(name)
	if err != nil {
		h.refuse(opt, rep, "%w", err)
		return nil
	}
	h.replyInfos(opt, e, name, wanted)
	h.reply(opt, nbdproto.RepAck)
	if opt == nbdproto.OptGo {
		h.begin(e, name)
		return nil
	}
	if err := e.Close(); err != nil {
		h.c.log.Error("nbd: closing an export failed", "export", name, "err", err)
	}
	return nil
}

// repairGo takes in the data of a GO that was sent with length zero, as the client of pojntfx/go-nbd does.
// The protocol calls that invalid; but that client also does not claim fixed newstyle, without which there
// is no GO at all, so that nobody who keeps to the protocol gets here.
func (h *handshake) repairGo(opt uint32) error {
	if opt != nbdproto.OptGo || len(h.data) != 0 || h.flags&nbdproto.FlagFixedNewstyle != 0 {
		return nil
	}
	h.data = append(h.data[:0], 0, 0, 0, 0)
	if _, err := io.ReadFull(h.c.nc, h.data); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(h.data)
	if n > nbdproto.MaxString {
		return fmt.Errorf("option GO of length 0, followed by %d", n)
	}
	h.data = append(h.data, make([]byte, n+2)...)
	_, err := io.ReadFull(h.c.nc, h.data[4:])
	return err
}

// parseInfo takes apart the data of INFO and GO: a name, and what the client wants to know.
func parseInfo(data []byte) (name string, wanted []byte, err error) {
	if len(data) < 6 {
		return "", nil, errors.New("the option's data is too short")
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-6) {
		return "", nil, errors.New("the export name is longer than the option's data")
	}
	name, rest := string(data[4:4+n]), data[4+n:]
	count := int(binary.BigEndian.Uint16(rest))
	if wanted = rest[2:]; len(wanted) != 2*count {
		return "", nil, fmt.Errorf("%d information requests announced in %d bytes", count, len(wanted))
	}
	return name, wanted, nil
}

// replyInfos queues what there is to know: always the export and its block sizes, the rest when asked for.
// A client that does not know block sizes ignores them.
func (h *handshake) replyInfos(opt uint32, e Export, name string, wanted []byte) {
	var b [14]byte
	binary.BigEndian.PutUint16(b[0:], nbdproto.InfoExport)
	binary.BigEndian.PutUint64(b[2:], uint64(e.Size()))
	binary.BigEndian.PutUint16(b[10:], h.transmissionFlags(e, name))
	h.reply(opt, nbdproto.RepInfo, b[:12])

	binary.BigEndian.PutUint16(b[0:], nbdproto.InfoBlockSize)
	binary.BigEndian.PutUint32(b[2:], MinBlockSize)
	binary.BigEndian.PutUint32(b[6:], PreferredBlockSize)
	binary.BigEndian.PutUint32(b[10:], MaxPayload)
	h.reply(opt, nbdproto.RepInfo, b[:14])

	about := describe(e, name)
	sent := [4]bool{nbdproto.InfoExport: true, nbdproto.InfoBlockSize: true}
	for ; len(wanted) > 0; wanted = wanted[2:] {
		typ := binary.BigEndian.Uint16(wanted)
		if int(typ) >= len(sent) || sent[typ] {
			continue
		}
		sent[typ] = true
		text := about.Name
		if typ == nbdproto.InfoDescription {
			text = about.Description
		}
		binary.BigEndian.PutUint16(b[0:], typ)
		h.reply(opt, nbdproto.RepInfo, b[:2], []byte(text))
	}
}
