package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"lsad/memsvc/qemu/qmp"
)

// MigrateOptions say what VM to move, and where to.
type MigrateOptions struct {
	// RAM is the file that is the VM's RAM (memory-backend-file with share=on). It is only read.
	RAM *os.File
	// Monitor is a QMP monitor of the VM's QEMU.
	Monitor *qmp.Client
	// Listener takes the source's one connection, URI is its address for QEMU ("unix:PATH", "tcp:HOST:PORT").
	// Migrate closes it.
	Listener net.Listener
	URI      string
	// Dial connects to the destination, a QEMU with the same machine and the same name for its memory backend,
	// which listens for a migration with post-copy switched on. It is called again after a connection was lost; ErrEnded
	// as in RestoreOptions.
	Dial func(ctx context.Context) (net.Conn, error)
	// FreePages, if not nil, looks for pages that are free in the guest whose RAM is the file, and calls free for
	// ranges of the file, in bytes. It runs once the destination has the VM, beside the transfer; until it returns
	// only what the destination asks for is sent. It has a goroutine of its own, which ends with it. An error of it is reported and costs nothing else.
	FreePages func(ctx context.Context, free func(off, n int64)) error
	// Runs is as in RestoreOptions.
	Runs func(ctx context.Context) error
	// Resume says that an earlier Migrate has brought the VM to the destination, which has lost its source since.
	// Listener and URI are not needed then.
	Resume bool

	// As in RestoreOptions. HugePage is the size of the pages that back the RAM at the destination.
	Rate     int64
	HugePage int64
	Patience time.Duration
	Progress func(Progress)
}

// Migrated is what Migrate did.
type Migrated struct {
	Progress
	// Stood says how long the VM stood still, and why, if the clock of the source is this machine's.
	Stood Standstill
	// Elided is the number of pages that were free in the guest, whether or not they were sent before that was known.
	Elided int64
	// ElideError says why free pages were not left out, or not all of them.
	ElideError error
}

// Standstill is a VM's way from one QEMU to the other: what had happened so long after its stop at the source. All are
// zero if the time of the stop is not known.
type Standstill struct {
	Saved     time.Duration // the source had sent the device state
	Sent      time.Duration // the destination was sent it, all but the last byte
	Confirmed time.Duration // the source had said that it will not run again; then the last byte was sent
	Loaded    time.Duration // the destination had said that it has what it needs to run
	Asked     time.Duration // the first page that the VM asked for was sent; zero if it never asked
}

// Migrate moves a running VM whose RAM is a shared file, by post-copy: its QEMU hands over the device state and stays
// behind, stopped, and the pages come from the file. Only the device state makes the VM wait, whatever its size.
//
// The result says who has the VM, also beside an error: Nobody if the source ends before it has handed it over. While
// that is Source any failure, and the end of ctx, has the source run on. From the moment when it is Destination the source must never run again; if Migrate fails then, the
// VM waits at the destination for the rest of its memory, which is in the file still: go on with Resume.
func Migrate(ctx context.Context, o MigrateOptions) (Migrated, error) {
	m := &mover{o: o, h: handover{monitor: o.Monitor}, result: Migrated{Progress: Progress{Owner: Source}}, began: time.Now()}
	var err error
	if o.Resume {
		err = m.again(ctx)
	} else {
		err = m.move(ctx)
	}
	if m.result.Owner == Source && errors.Is(err, qmp.ErrClosed) { // of the source: the other one is not asked before
		m.result.Owner = Nobody
		err = fmt.Errorf("%w: %w", ErrSourceEnded, err)
	}
	if err != nil {
		return m.result, fmt.Errorf("migrate: %w", err)
	}
	return m.result, nil
}

type mover struct {
	o       MigrateOptions
	h       handover
	status  string // of the source's QEMU at the beginning
	ram     splitRAM
	search  *search
	session *session // nil until the VM's blocks are known
	result  Migrated
	began   time.Time
	at      struct{ saved, sent, confirmed, loaded, asked time.Time }
}

// move is a migration from its beginning.
func (m *mover) move(ctx context.Context) (err error) {
	defer m.o.Listener.Close()
	if err := m.inspect(ctx, "running"); err != nil {
		return err
	}
	if m.o.Progress != nil {
		m.o.Progress(Progress{Phase: Connecting, Owner: Source})
	}
	// A destination that is not there should be known before anything is done to the VM.
	conn, err := m.o.Dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to the destination: %w", err)
	}
	defer conn.Close()
	defer func() {
		if m.result.Owner == Source {
			if back := m.h.giveBack(ctx); back != nil {
				err = fmt.Errorf("%w; and %w", err, back)
			}
		}
	}()
	if err := m.h.setCapabilities(ctx, unshared); err != nil {
		return err
	}
	defer m.finish()
	err = m.handOver(ctx, conn)
	if err != nil && m.result.Owner == Destination {
		err = m.session.recover(ctx, m.options(m.session.state), err)
	}
	return err
}

// again goes on with a migration whose process has died. All but the file's block was sent before the VM ran.
func (m *mover) again(ctx context.Context) (err error) {
	// Whatever keeps this from going on, the VM is where it was brought to: unless it is seen to run here.
	m.result.Owner, m.result.Ran = Destination, true
	if err := m.inspect(ctx, "postmigrate"); err != nil {
		if m.status == "running" {
			m.result.Owner, m.result.Ran = Source, false
		}
		return err
	}
	b := Block{Name: m.ram.name, Size: m.ram.size}
	m.ram.blocks, m.ram.copies, m.ram.shared = []Block{b}, [][]byte{nil}, b
	defer m.finish()
	if err := m.open(ctx, &State{Blocks: m.ram.blocks}); err != nil {
		return err
	}
	m.session.progress.Owner, m.session.progress.Ran = Destination, true
	return m.session.recover(ctx, m.options(m.session.state), ErrLost)
}

// inspect holds that the VM is what can be moved.
func (m *mover) inspect(ctx context.Context, want string) error {
	info, err := m.o.RAM.Stat()
	if err != nil {
		return err
	}
	m.status, err = m.h.status(ctx)
	if err != nil {
		return err
	}
	if m.status != want {
		return fmt.Errorf("the VM at the source is %s, it has to be %s for this", m.status, want)
	}
	m.ram.file, m.ram.size = m.o.RAM, info.Size()
	m.ram.name, err = m.h.backend(ctx, info)
	return err
}

// options are those of a restore from the file.
func (m *mover) options(state *State) RestoreOptions {
	o := RestoreOptions{
		State: state, RAM: &m.ram, Dial: m.o.Dial, Rate: m.o.Rate, Patience: m.o.Patience, Progress: m.o.Progress,
	}
	if m.o.HugePage != 0 {
		o.HugePages = map[string]int64{m.ram.name: m.o.HugePage}
	}
	return o
}

// open makes the session. Of state the device state may follow later.
func (m *mover) open(ctx context.Context, state *State) (err error) {
	o := m.options(state)
	o.Zero = NewPageSet(state.Pages())
	s, err := newSession(o)
	if err != nil {
		return err
	}
	s.began = m.began
	s.early = func(b Block) bool { return b.Name != m.ram.name }
	m.search = m.newSearch(ctx, o.Zero)
	s.hold, s.begun = m.search.done, m.search.start
	s.loaded = func() { m.at.loaded = time.Now() }
	s.served = func() { m.at.asked = time.Now() }
	m.session = s
	return nil
}

// finish notes what was done.
func (m *mover) finish() {
	if m.session == nil {
		return
	}
	m.search.stop()
	s := m.session
	s.progress.Took = time.Since(s.began)
	m.result.Progress, m.result.Elided, m.result.ElideError = s.progress, m.search.found, m.search.err
	since := func(t time.Time) time.Duration {
		if t.IsZero() || m.h.stopped.IsZero() {
			return 0
		}
		return max(0, t.Sub(m.h.stopped))
	}
	at := &m.at
	m.result.Stood = Standstill{since(at.saved), since(at.sent), since(at.confirmed), since(at.loaded), since(at.asked)}
}
