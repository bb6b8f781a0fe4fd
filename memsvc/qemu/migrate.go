package qemu

import (
	"context"
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
	// which listens for a migration with post-copy switched on. It is called again after a connection was lost.
	Dial func(ctx context.Context) (net.Conn, error)
	// FreePages, if not nil, looks for pages that are free in the guest whose RAM is the file, and calls free for
	// ranges of the file, in bytes. It runs once the destination has the VM, beside the transfer; until it returns
	// only what the destination asks for is sent. An error of it is reported and costs nothing else.
	FreePages func(ctx context.Context, free func(off, n int64)) error
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
	// Down is the time from the VM's stop at the source to the destination's word that it has what it needs to
	// run, if the clock of the source is this machine's. 0 if it is not known.
	Down time.Duration
	// Elided is the number of pages that were free in the guest, whether or not they were sent before that was known.
	Elided int64
	// ElideError says why free pages were not left out, or not all of them.
	ElideError error
}

// Migrate moves a running VM whose RAM is a shared file, by post-copy: its QEMU hands over the device state and stays
// behind, stopped, and the pages come from the file. Only the device state makes the VM wait, whatever its size.
//
// The result says who has the VM, also beside an error. While that is Source any failure, and the end of ctx, has the
// source run on. From the moment when it is Destination the source must never run again; if Migrate fails then, the
// VM waits at the destination for the rest of its memory, which is in the file still: go on with Resume.
func Migrate(ctx context.Context, o MigrateOptions) (Migrated, error) {
	m := &mover{o: o, h: handover{monitor: o.Monitor}, result: Migrated{Progress: Progress{Owner: Source}}}
	var err error
	if o.Resume {
		err = m.again(ctx)
	} else {
		err = m.move(ctx)
	}
	if err != nil {
		return m.result, fmt.Errorf("migrate: %w", err)
	}
	return m.result, nil
}

type mover struct {
	o      MigrateOptions
	h      handover
	ram    splitRAM
	result Migrated
}

// move is a migration from its beginning.
func (m *mover) move(ctx context.Context) (err error) {
	defer m.o.Listener.Close()
	if err := m.inspect(ctx, "running"); err != nil {
		return err
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
	state, err := m.h.take(ctx, m.o.Listener, m.o.URI, &m.ram)
	if err != nil {
		return fmt.Errorf("take the VM's state from the source: %w", err)
	}
	return m.send(ctx, state, func(context.Context) (net.Conn, error) { return conn, nil })
}

// again goes on with a migration whose process has died. All but the file's block was sent before the VM ran.
func (m *mover) again(ctx context.Context) error {
	if err := m.inspect(ctx, "postmigrate"); err != nil {
		return err
	}
	b := Block{Name: m.ram.name, Size: m.ram.size}
	m.ram.blocks, m.ram.copies, m.ram.shared = []Block{b}, [][]byte{nil}, b
	m.result.Owner = Destination
	return m.send(ctx, &State{Blocks: m.ram.blocks}, nil)
}

// inspect holds that the VM is what can be moved.
func (m *mover) inspect(ctx context.Context, want string) error {
	info, err := m.o.RAM.Stat()
	if err != nil {
		return err
	}
	status, err := m.h.status(ctx)
	if err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("the VM at the source is %s, it has to be %s for this", status, want)
	}
	m.ram.file, m.ram.size = m.o.RAM, info.Size()
	m.ram.name, err = m.h.backend(ctx, info)
	return err
}

// send brings the VM to the destination: with first the connection to begin with, or nil if it is there already.
func (m *mover) send(ctx context.Context, state *State, first func(context.Context) (net.Conn, error)) error {
	o := RestoreOptions{
		State: state, RAM: &m.ram, Zero: NewPageSet(state.Pages()), Dial: m.o.Dial, Rate: m.o.Rate,
		Patience: m.o.Patience, Progress: m.o.Progress,
	}
	if m.o.HugePage != 0 {
		o.HugePages = map[string]int64{m.ram.name: m.o.HugePage}
	}
	s, err := newSession(o)
	if err != nil {
		return err
	}
	s.early = func(b Block) bool { return b.Name != m.ram.name }
	search := m.search(ctx, o.Zero)
	s.hold, s.begun = search.done, search.start
	defer func() {
		search.stop()
		s.progress.Took = time.Since(s.began)
		m.result.Progress, m.result.Elided, m.result.ElideError = s.progress, search.found, search.err
	}()
	s.loaded = func() {
		if !m.h.stopped.IsZero() {
			m.result.Down = max(0, time.Since(m.h.stopped))
		}
	}
	if first == nil {
		s.progress.Owner = Destination
		return s.recover(ctx, o, ErrLost)
	}
	err = s.deliver(ctx, first, func() {
		m.result.Owner = Destination
		s.commit()
	})
	if err != nil && s.progress.Owner == Destination {
		err = s.recover(ctx, o, err)
	}
	return err
}
