package qemu

import (
	"errors"
	"fmt"
	"io"
	"net"
	"unicode/utf8"
)

// pageSink takes the pages of a stream, in its order. Offsets are in bytes, in the address space of all blocks.
type pageSink interface {
	begin(*State) error             // the blocks are known
	page(off int64, p []byte) error // p is valid until it returns
	zero(off int64) error
	end() error // the last page was there
}

// parser reads a precopy stream from its beginning to its end.
type parser struct {
	r     *reader
	pages pageSink
	state State
	reply io.Writer // of the return path, if there can be one

	returnPath bool
	ramID      uint32
	ramSeen    bool
	last       Block // of the record before, for CONTINUE
	hasLast    bool
	byName     map[string]int
	buf        [PageSize]byte
}

func (p *parser) parse() error {
	p.header()
	p.configuration()
	for p.r.err == nil {
		done, err := p.section()
		if err != nil {
			p.r.fail(err)
		}
		if done && p.r.err == nil {
			return p.tail()
		}
	}
	return p.r.err
}

func (p *parser) header() {
	if magic := p.r.u32(); p.r.err == nil && magic != streamMagic {
		p.r.fail(malformed("it begins with %#08x and not with QEMU's mark; only a QEMU that runs migrate may connect", magic))
	}
	if version := p.r.u32(); p.r.err == nil && version != streamVersion {
		p.r.fail(unsupported("version %d of the migration stream (this is for version %d)", version, streamVersion))
	}
}

// configuration reads the machine's name and what follows it.
func (p *parser) configuration() {
	if t := p.r.u8(); p.r.err == nil && t != typeConfiguration {
		p.r.fail(unsupported("a stream without configuration (machine types before 2.4)"))
	}
	n := p.r.u32()
	if n == 0 || n > maxName {
		p.r.fail(malformed("the machine's name has %d bytes", n))
		return
	}
	p.state.Machine = string(p.r.bytes(int(n)))
	if !utf8.ValidString(p.state.Machine) {
		p.r.fail(malformed("the machine's name is not text"))
	}
	for i := 0; ; i++ {
		if t, ok := p.r.peek(); !ok || t != typeSubsection {
			return
		}
		if i == maxConfig {
			p.r.fail(malformed("more than %d configuration sections", maxConfig))
			return
		}
		p.r.u8()
		p.configSection(p.r.name(), p.r.u32())
	}
}

func (p *parser) configSection(name string, version uint32) {
	size := 0
	switch name {
	case capabilitiesSection:
		p.capabilities()
		return
	case uuidSection:
		size = 16
	case pageBitsSection:
		size = 4
	default:
		if p.r.err == nil {
			p.r.fail(unsupported("the configuration section %q", name))
		}
		return
	}
	p.state.config = append(p.state.config, subsection{name, version, p.r.bytes(size)})
}

// capabilities are those that both sides must have the same.
func (p *parser) capabilities() {
	n := p.r.u32()
	if n > maxCapabilities {
		p.r.fail(malformed("%d capabilities", n))
	}
	for range n {
		name := p.r.name()
		switch {
		case p.r.err != nil:
			return
		case name == ignoreShared:
			p.state.IgnoresShared = true
		default:
			p.r.fail(unsupported("the migration capability %s: switch it off at the source", name))
		}
	}
}

// section reads one section or command, and says whether it was the RAM's last.
func (p *parser) section() (done bool, err error) {
	switch t := p.r.u8(); {
	case p.r.err != nil:
		return false, p.r.err
	case t == typeCommand:
		return false, p.command()
	case t == typeSectionStart:
		return false, p.sectionStart()
	case t == typeSectionPart || t == typeSectionEnd:
		if id := p.r.u32(); p.r.err == nil && (!p.ramSeen || id != p.ramID) {
			return false, malformed("a part of section %d, which has not begun", id)
		}
		if err := p.ramRecords(); err != nil {
			return false, err
		}
		return t == typeSectionEnd, p.footer()
	case t == typeSectionFull:
		p.r.u32()
		return false, unsupported("the device state %q before the RAM", p.r.name())
	case t == typeEOF:
		return false, malformed("it ends before the RAM has")
	default:
		return false, malformed("a section of type %#x", t)
	}
}

func (p *parser) sectionStart() error {
	id, name := p.r.u32(), p.r.name()
	p.r.u32() // instance
	version := p.r.u32()
	switch {
	case p.r.err != nil:
		return p.r.err
	case name == "block":
		return unsupported("block migration: use a disk that both sides reach, such as a volume over NBD, and migrate without blk and inc")
	case name != ramSection:
		return unsupported("the section %q: remove the device that it belongs to, or the capability (dirty-bitmaps)", name)
	case version != ramSectionVersion:
		return unsupported("version %d of the section ram", version)
	case p.ramSeen:
		return malformed("a second section ram")
	}
	p.ramID, p.ramSeen = id, true
	if err := p.memSize(); err != nil {
		return err
	}
	if err := p.ramRecords(); err != nil {
		return err
	}
	return p.footer()
}

func (p *parser) footer() error {
	if t, id := p.r.u8(), p.r.u32(); p.r.err == nil && (t != typeFooter || id != p.ramID) {
		return malformed("the section ram has no footer")
	}
	return p.r.err
}

// tail reads what follows the RAM: device state to the end of the stream.
func (p *parser) tail() error {
	if err := p.pages.end(); err != nil {
		return err
	}
	var t tail
	chunk := make([]byte, 64<<10)
	for {
		n, err := p.r.r.Read(chunk)
		p.r.pos += int64(n)
		done, bad := t.add(chunk[:n])
		if bad != nil {
			return bad
		}
		if done {
			p.state.Device, p.state.Description = t.device, t.description
			return p.answer(rpShut, 0)
		}
		if errors.Is(err, io.EOF) {
			return p.noTail()
		}
		if err != nil {
			return fmt.Errorf("device state: %w", connError(err))
		}
	}
}

func (p *parser) noTail() error {
	return malformed("it has no end that is known: the source gave up, or its machine has suppress-vmdesc=on")
}

// connError tells a broken connection from other errors.
func connError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}
