package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeDest does what QEMU does as the destination of a post-copy migration, as strictly: it refuses a page that it
// has, a request out of order, a block that was not discarded. It keeps what it has over connections.
type fakeDest struct {
	t     testing.TB
	state *State
	early map[string]bool // blocks that come before the VM runs

	// Script.
	dieAt    string // "header", "ram", "prepared", "package", "loaded", "running", "pages", "end"
	shutWith int    // status of SHUT at the end
	diePages int    // with "pages": after so many
	wants    []pageRange
	// asksFirst has it ask before it says that the device state is loaded, as a device's state may need memory.
	asksFirst bool
	prepared  chan struct{} // if not nil, closed when it has accepted the VM's blocks
	load, run chan struct{} // if not nil, it waits for them before it answers to the device state, and before it runs
	gone      atomic.Bool   // the connection ended while it waited

	mu        sync.Mutex
	ram       []byte
	has       *PageSet
	order     []int64 // pages after RUN, as they came
	ran       bool
	discarded map[string]bool
	conns     int
	resumed   bool
}

func newFakeDest(t testing.TB, s *State) *fakeDest {
	return &fakeDest{t: t, state: s, ram: make([]byte, s.Size()), has: NewPageSet(s.Pages()), discarded: map[string]bool{}, early: map[string]bool{}}
}

var errScript = errors.New("dies as the script says")

// dial serves a connection on the other end.
func (d *fakeDest) dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, b := pair(d.t)
	d.mu.Lock()
	d.conns++
	d.mu.Unlock()
	go func() {
		defer b.Close()
		if err := d.serve(b); err != nil && !errors.Is(err, errScript) && ctx.Err() == nil && !errors.Is(err, ErrMalformed) {
			d.t.Errorf("destination: %v", err)
		}
	}()
	return a, nil
}

type fakeConn struct {
	*fakeDest
	conn net.Conn
	r    *reader
	last Block
	id   uint32
}

func (d *fakeDest) serve(conn net.Conn) error {
	c := &fakeConn{fakeDest: d, conn: conn, r: newReader(conn, 1<<16)}
	d.mu.Lock()
	ran := d.ran
	d.mu.Unlock()
	if !ran {
		if err := c.header(); err != nil {
			return err
		}
	}
	for {
		end, err := c.section(c.r)
		if end || err != nil {
			return err
		}
	}
}

func (c *fakeConn) dies(at string) error {
	if c.dieAt == at {
		c.dieAt = ""
		return errScript
	}
	return nil
}

func (c *fakeConn) header() error {
	want := (&State{Machine: c.state.Machine, config: c.state.config}).appendHeader(nil)
	got := c.r.bytes(len(want))
	if c.r.err != nil {
		return c.r.err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("header %x instead of %x", got, want)
	}
	return c.dies("header")
}

func (c *fakeConn) say(kind uint16, data []byte) error {
	p := binary.BigEndian.AppendUint16(nil, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(len(data)))
	_, err := c.conn.Write(append(p, data...))
	return err
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// ask asks for pages.
func (c *fakeConn) ask(want pageRange) error {
	for _, b := range c.state.Blocks {
		if off := want.first * PageSize; off >= b.Offset && off < b.Offset+b.Size {
			p := binary.BigEndian.AppendUint64(nil, uint64(off-b.Offset))
			p = append(p, u32(uint32(want.count*PageSize))...)
			return c.say(rpReqPagesID, appendName(p, b.Name))
		}
	}
	return errors.New("no such page")
}

func (c *fakeConn) section(r *reader) (end bool, err error) {
	switch t := r.u8(); {
	case r.err != nil:
		return false, r.err
	case t == typeCommand:
		cmd, n := r.u16(), r.u16()
		return cmd == cmdRun, c.command(cmd, r.bytes(int(n)))
	case t == typeSectionStart:
		return false, c.begin()
	case t == typeSectionPart, t == typeSectionEnd:
		if id := r.u32(); id != c.id && !c.ran {
			return false, fmt.Errorf("part of section %d", id)
		}
		return false, c.pages()
	case t == typeEOF:
		if err := c.dies("end"); err != nil {
			return false, err
		}
		return true, c.say(rpShut, u32(uint32(c.shutWith)))
	default:
		return false, fmt.Errorf("a section of type %d", t)
	}
}

func (c *fakeConn) begin() error {
	w := &streamWriter{ram: ramSectionID}
	w.start(&State{Blocks: c.state.Blocks})
	w.endPart()
	if got := c.r.bytes(len(w.p) - 1); !bytes.Equal(got, w.p[1:]) {
		return fmt.Errorf("RAM section %x instead of %x", got, w.p[1:])
	}
	c.id = ramSectionID
	return c.dies("ram")
}

func (c *fakeConn) command(cmd uint16, data []byte) error {
	switch cmd {
	case cmdOpenReturnPath, cmdAdvise, cmdListen:
		return nil
	case cmdPing:
		return c.ping(binary.BigEndian.Uint32(data))
	case cmdDiscard:
		c.discarded[string(data[2:2+data[1]])] = true
		return nil
	case cmdPackaged:
		return c.packaged(int(binary.BigEndian.Uint32(data)))
	case cmdRecvBitmap:
		return c.bitmap(string(data[1:]))
	case cmdResume:
		c.mu.Lock()
		c.resumed = true
		c.mu.Unlock()
		if err := c.say(rpResumeAck, u32(resumeAckOK)); err != nil {
			return err
		}
		return c.askAll()
	case cmdRun:
		return nil
	}
	return fmt.Errorf("command %d", cmd)
}

func (c *fakeConn) ping(n uint32) error {
	if n == pingPrepared {
		for _, b := range c.state.Blocks {
			if c.discarded[b.Name] == c.early[b.Name] {
				return fmt.Errorf("block %s: discarded is %v", b.Name, c.discarded[b.Name])
			}
		}
		if err := c.dies("prepared"); err != nil {
			return err
		}
		if c.prepared != nil {
			close(c.prepared)
		}
	}
	return c.say(rpPong, u32(n))
}

// packaged checks the device state and runs the VM.
func (c *fakeConn) packaged(n int) error {
	if err := c.dies("package"); err != nil {
		return err
	}
	want := appendCommand(nil, cmdListen, nil)
	want = append(want, c.state.Device...)
	want = appendPing(want, pingLoaded)
	want = appendCommand(want, cmdRun, nil)
	switch got := c.r.bytes(n); {
	case c.r.err != nil:
		return c.r.err
	case !bytes.Equal(got, want):
		return fmt.Errorf("package %q instead of %q", got, want)
	}
	if err := c.dies("loaded"); err != nil {
		return err
	}
	c.mu.Lock()
	c.ran = true
	c.mu.Unlock()
	steps := []func() error{func() error { return c.say(rpPong, u32(pingLoaded)) }, func() error { return c.wait(c.run) }, func() error { return c.dies("running") }, c.askAll}
	if err := c.wait(c.load); err != nil {
		return err
	}
	if c.asksFirst {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for the script, as QEMU does that has much to load: with another thread that ends the process when the
// connection ends.
func (c *fakeConn) wait(until chan struct{}) error {
	for until != nil {
		select {
		case <-until:
			return nil
		case <-time.After(time.Millisecond):
		}
		if c.closed() {
			c.gone.Store(true)
			return errScript
		}
	}
	return nil
}

// closed says whether the other end has closed the connection.
func (c *fakeConn) closed() bool {
	raw, err := c.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	n, got := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		n, _, got = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return err != nil || n == 0 && got == nil || got != nil && got != unix.EAGAIN
}

func (c *fakeConn) askAll() error {
	for _, want := range c.wants {
		if c.has.Has(want.first) {
			continue
		}
		if err := c.ask(want); err != nil {
			return err
		}
	}
	return nil
}

func (c *fakeConn) bitmap(name string) error {
	b, ok := c.state.Block(name)
	if !ok {
		return fmt.Errorf("bitmap of %q", name)
	}
	words := make([]uint64, (b.Size/PageSize+63)/64)
	for page := range b.Size / PageSize {
		if c.has.Has(b.Offset/PageSize + page) {
			words[page/64] |= 1 << (page % 64)
		}
	}
	if err := c.say(rpRecvBitmap, appendName(nil, name)); err != nil {
		return err
	}
	p := binary.BigEndian.AppendUint64(nil, uint64(len(words)*8))
	for _, w := range words {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	_, err := c.conn.Write(binary.BigEndian.AppendUint64(p, bitmapEndMark))
	return err
}

func (c *fakeConn) pages() error {
	for {
		v := c.r.u64()
		if v == ramEOS {
			break
		}
		if v&ramContinue == 0 {
			c.last, _ = c.state.Block(c.r.name())
		}
		page := (c.last.Offset + int64(v&^ramFlags)) / PageSize
		data := make([]byte, PageSize)
		if v&ramZero != 0 {
			c.r.u8()
		} else {
			c.r.full(data)
		}
		if c.r.err != nil {
			return c.r.err
		}
		if err := c.place(page, data); err != nil {
			return err
		}
	}
	if t, id := c.r.u8(), c.r.u32(); t != typeFooter || id != ramSectionID {
		return errors.New("no footer")
	}
	return nil
}

func (c *fakeConn) place(page int64, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.has.Add(page) {
		c.t.Errorf("page %d came twice", page)
	}
	copy(c.ram[page*PageSize:], data)
	if c.ran {
		c.order = append(c.order, page)
	} else if !c.early[c.last.Name] {
		return fmt.Errorf("page %d before the VM runs", page)
	}
	if c.dieAt == "pages" && len(c.order) >= c.diePages {
		return c.dies("pages")
	}
	return nil
}

// came is which pages came after RUN, in order.
func (d *fakeDest) came() []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.order)
}

func (d *fakeDest) runs() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ran
}
