package qemu

import "unicode/utf8"

// memSize reads the list of blocks.
func (p *parser) memSize() error {
	v := p.r.u64()
	if p.r.err == nil && v&ramFlags != ramMemSize {
		return malformed("the section ram does not begin with its blocks")
	}
	total := v &^ ramFlags
	if total > maxRAM {
		return malformed("%d bytes of RAM", total)
	}
	p.byName = map[string]int{}
	var sum int64
	for sum < int64(total) {
		b := Block{Name: p.r.name(), Offset: sum}
		size := p.r.u64()
		if p.state.IgnoresShared {
			b.Addr = p.r.u64()
		}
		if p.r.err != nil {
			return p.r.err
		}
		if err := p.checkBlock(b.Name, size, total-uint64(sum)); err != nil {
			return err
		}
		b.Size = int64(size)
		p.byName[b.Name] = len(p.state.Blocks)
		p.state.Blocks = append(p.state.Blocks, b)
		sum += b.Size
	}
	if len(p.state.Blocks) == 0 {
		return malformed("there is no RAM")
	}
	return p.pages.begin(&p.state)
}

func (p *parser) checkBlock(name string, size, left uint64) error {
	_, twice := p.byName[name]
	switch {
	case name == "" || !utf8.ValidString(name) || twice:
		return malformed("the RAM block %q: no name, or two of that name", name)
	case size == 0 || size%PageSize != 0 || size > left:
		return malformed("the RAM block %q of %d bytes, with %d left of the total", name, size, left)
	case len(p.state.Blocks) == maxBlocks:
		return malformed("more than %d RAM blocks", maxBlocks)
	}
	return nil
}

// ramRecords reads pages until the end of this part of the section.
func (p *parser) ramRecords() error {
	for {
		v := p.r.u64()
		if p.r.err != nil {
			return p.r.err
		}
		addr, flags := int64(v&^ramFlags), v&ramFlags
		if flags == ramEOS {
			return nil
		}
		if err := refuseFlags(flags); err != nil {
			return err
		}
		b, err := p.block(flags)
		if err != nil {
			return err
		}
		if addr < 0 || addr >= b.Size {
			return malformed("a page at %#x of the RAM block %q, which has %#x bytes", addr, b.Name, b.Size)
		}
		if err := p.content(b.Offset+addr, flags); err != nil {
			return err
		}
	}
}

func refuseFlags(flags uint64) error {
	switch kind := flags &^ ramContinue; {
	case kind == ramPage || kind == ramZero:
		return nil
	case kind&ramXBZRLE != 0:
		return unsupported("XBZRLE: switch the migration capability xbzrle off at the source")
	case kind&ramCompress != 0:
		return unsupported("compression: switch the migration capability compress off at the source")
	case kind&ramFlush != 0:
		return unsupported("several connections: switch the migration capability multifd off at the source")
	case kind&ramHook != 0:
		return unsupported("RDMA: migrate over a TCP or unix socket")
	}
	return malformed("a RAM record with flags %#x", flags)
}

func (p *parser) block(flags uint64) (Block, error) {
	if flags&ramContinue != 0 {
		if !p.hasLast {
			return Block{}, malformed("a RAM record goes on with a block, and there was none")
		}
		return p.last, nil
	}
	name := p.r.name()
	i, ok := p.byName[name]
	if p.r.err != nil {
		return Block{}, p.r.err
	}
	if !ok {
		return Block{}, malformed("a page of the RAM block %q, which was not announced", name)
	}
	p.last, p.hasLast = p.state.Blocks[i], true
	return p.last, nil
}

func (p *parser) content(off int64, flags uint64) error {
	if flags&ramZero != 0 {
		fill := p.r.u8()
		if p.r.err != nil {
			return p.r.err
		}
		if fill != 0 {
			return malformed("a page filled with %#x", fill)
		}
		return p.pages.zero(off)
	}
	if !p.r.full(p.buf[:]) {
		return p.r.err
	}
	return p.pages.page(off, p.buf[:])
}
