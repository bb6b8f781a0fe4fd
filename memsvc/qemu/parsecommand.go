package qemu

import "encoding/binary"

// command obeys what a source sends to a destination before post-copy begins.
func (p *parser) command() error {
	cmd, n := p.r.u16(), p.r.u16()
	data := p.r.bytes(int(n))
	switch {
	case p.r.err != nil:
		return p.r.err
	case cmd == cmdOpenReturnPath && n == 0:
		p.returnPath = p.reply != nil
	case cmd == cmdPing && n == 4:
		return p.answer(rpPong, binary.BigEndian.Uint32(data))
	case cmd == cmdAdvise && n == 0: // post-copy of something other than RAM
	case cmd == cmdAdvise && n == 16:
		if sizes := binary.BigEndian.Uint64(data); sizes != PageSize {
			return unsupported("huge pages while the migration capability postcopy-ram is on: switch it off at the source for a save")
		}
	case cmd == cmdListen || cmd == cmdRun || cmd == cmdDiscard || cmd == cmdPackaged:
		return unsupported("post-copy into an image: a VM that already runs elsewhere cannot be saved; do not use migrate-start-postcopy")
	default:
		return unsupported("the command %d with %d bytes", cmd, n)
	}
	return nil
}

// answer sends a message on the return path, if the source has opened it.
func (p *parser) answer(kind uint16, value uint32) error {
	if !p.returnPath {
		return nil
	}
	msg := binary.BigEndian.AppendUint16(nil, kind)
	msg = binary.BigEndian.AppendUint16(msg, 4)
	_, err := p.reply.Write(binary.BigEndian.AppendUint32(msg, value))
	return err
}
