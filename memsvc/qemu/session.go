package qemu

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Pings that lsad sends, and whose answers tell how far the destination is.
const (
	pingPrepared = 1 // all that comes before the device state is accepted
	pingLoaded   = 2 // the device state is accepted; the VM runs next
)

// notSent is how many bytes a TCP socket takes beyond what the network does: what is asked for waits behind them.
const notSent = 128 << 10

// stalled is how long a TCP connection may be without an answer from the other host.
const stalled = 20 * time.Second

func tune(conn net.Conn) {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	// It works without, only not as well.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stalled.Milliseconds()))
	})
}

// session is a VM on its way to a destination, over one connection after the other. All but demand and zero belong
// to the goroutine that sends.
type session struct {
	state     *State
	ram       io.ReaderAt
	zero      *PageSet
	sent      *PageSet
	early     func(Block) bool // sent before the VM runs
	hugePages map[string]int64
	fill      bool
	hold      <-chan struct{} // if not nil, the background waits until it is closed
	loaded    func()          // called when the destination has accepted the device state; may be nil
	begun     func()          // called when work in the background may begin; may be nil
	served    func()          // called when the first page that was asked for was sent; may be nil
	// background says that pages which nobody asked for may be sent. Before the destination has loaded the device
	// state they would only keep it from that, and the VM waits.
	background  bool
	pace        pace
	demand      demand
	batch       batch
	first       orderer   // what the background sends first
	recorder    *recorder // nil: nothing is recorded
	cursor      int64     // page at which the background goes on after that
	ended       bool      // END was sent on this connection
	runs        func(context.Context) error
	shelter     *shelter        // of the connection on which the VM is started; nil on others
	interrupted <-chan struct{} // closed when the shelter outlives an interrupt; nil once that was told
	leaving     bool            // it was told

	report   func(Progress)
	progress Progress
	began    time.Time
	reported time.Time
}

// pageSize is the size of the pages that back a block at the destination, in bytes.
func (s *session) pageSize(b Block) int64 {
	if n := s.hugePages[b.Name]; n != 0 {
		return n
	}
	return PageSize
}

// tell reports progress: always if the phase changes or the destination has shown that it runs, else now and then.
func (s *session) tell(phase Phase) {
	const often = 100 * time.Millisecond
	if phase == Running && s.leaving {
		phase = Interrupted
	}
	now := time.Now()
	p := &s.progress
	ran := p.Ran || s.shelter != nil && s.shelter.proven()
	if p.Phase == phase && p.Ran == ran && now.Sub(s.reported) < often {
		return
	}
	s.reported = now
	p.Phase, p.Ran, p.Demanded, p.Took = phase, ran, s.demand.count(), now.Sub(s.began)
	p.TotalPages, p.SentPages = s.sent.Len(), s.sent.Count()
	if s.report != nil {
		s.report(*p)
	}
}

func (s *session) write(l *link, p []byte) error {
	n, err := l.conn.Write(p)
	s.progress.Bytes += int64(n)
	if err != nil {
		return fmt.Errorf("send to the destination: %w: %w", ErrLost, err)
	}
	return nil
}

// await waits for a message.
func (s *session) await(ctx context.Context, l *link, accept func(message) bool) error {
	for {
		select {
		case m, ok := <-l.messages:
			switch {
			case !ok:
				return l.lost()
			case m.kind == rpShut:
				return fmt.Errorf("%w: it ended the migration", ErrRefused)
			case accept(m):
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lost is why the return path ended.
func (l *link) lost() error {
	if l.err == nil {
		return ErrLost
	}
	return fmt.Errorf("return path of the destination: %w", l.err)
}

func isPong(n uint32) func(message) bool {
	return func(m message) bool { return m.kind == rpPong && m.value == n }
}

// prepare tells the destination what VM comes, and waits until it has accepted that.
func (s *session) prepare(ctx context.Context, l *link) error {
	s.tell(Preparing)
	p := s.state.appendHeader(nil)
	p = appendCommand(p, cmdOpenReturnPath, nil)
	p = appendCommand(p, cmdAdvise, s.advice())
	p = appendRAMStart(p, s.state.Blocks, s.pageSize)
	if err := s.write(l, p); err != nil {
		return err
	}
	p = p[:0]
	for _, b := range s.state.Blocks {
		if !s.early(b) {
			p = appendDiscard(p, b)
		}
	}
	if err := s.write(l, appendPing(p, pingPrepared)); err != nil {
		return err
	}
	return s.await(ctx, l, isPong(pingPrepared))
}

// notTaken says that prepare has failed.
func (s *session) notTaken(err error) error {
	return fmt.Errorf("the destination did not take the VM, its own log says why (it must have the same machine, memory and devices): %w", err)
}

// sendEarly sends the blocks of which nothing may be missing when the VM runs.
func (s *session) sendEarly(l *link) error {
	for _, b := range s.state.Blocks {
		if s.early(b) {
			if err := s.sendBlock(l, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// advice is which page sizes there are, then the guest's.
func (s *session) advice() []byte {
	var sizes uint64
	for _, b := range s.state.Blocks {
		sizes |= uint64(s.pageSize(b))
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, sizes), PageSize)
}

// sendBlock sends all of a block.
func (s *session) sendBlock(l *link, b Block) error {
	first, end := b.Offset/PageSize, (b.Offset+b.Size)/PageSize
	for page := first; page < end; {
		s.batch.begin()
		for page < end && s.batch.room() > 0 {
			next, err := s.add(page, min(end, page+s.batch.room()))
			if err != nil {
				return err
			}
			page = next
		}
		if err := s.flush(l); err != nil {
			return err
		}
	}
	return nil
}

// start sends the device state and has the VM run. commit is called right before that can no longer be undone, and can
// prevent it: the destination does nothing with the device state before the last byte of what holds it.
func (s *session) start(l *link, commit func() error) error {
	p := appendCommand(nil, cmdListen, nil)
	p = append(p, s.state.Device...)
	p = appendPing(p, pingLoaded)
	p = appendCommand(p, cmdRun, nil)
	head := appendCommand(nil, cmdPackaged, binary.BigEndian.AppendUint32(nil, uint32(len(p))))
	p = append(head, p...)
	last := len(p) - 1
	if err := s.write(l, p[:last]); err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	return s.write(l, p[last:])
}

// resume asks what the destination has, on a new connection, and goes on from there.
func (s *session) resume(ctx context.Context, l *link) error {
	s.ended = false
	has := NewPageSet(s.sent.Len())
	for _, b := range s.state.Blocks {
		if err := s.write(l, appendCommand(nil, cmdRecvBitmap, appendName(nil, b.Name))); err != nil {
			return err
		}
		err := s.await(ctx, l, func(m message) bool {
			if m.kind != rpRecvBitmap || m.block.Name != b.Name {
				return false
			}
			has.copyBlock(b, m.bitmap)
			return true
		})
		if err != nil {
			return err
		}
	}
	s.sent = has
	s.demand.clear()
	if err := s.write(l, appendCommand(nil, cmdResume, nil)); err != nil {
		return err
	}
	if err := s.await(ctx, l, func(m message) bool { return m.kind == rpResumeAck && m.value == resumeAckOK }); err != nil {
		return err
	}
	s.beginBackground()
	return nil
}

func (s *session) beginBackground() {
	if s.background {
		return
	}
	s.background = true
	if s.begun != nil {
		s.begun()
	}
}
