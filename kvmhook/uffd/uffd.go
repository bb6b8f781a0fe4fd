package uffd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNotUffd says that a descriptor is something else.
var ErrNotUffd = errors.New("not a userfaultfd")

// FD is a userfaultfd. It is not blocking: Read returns unix.EAGAIN where nothing waits. Its methods may be called by
// many goroutines at once, but not after Close.
type FD struct{ fd int }

// Message is one event.
type Message struct {
	Event Event
	// Of a page fault: its flags and address, which is that of the page.
	Flags, Address uint64
	// Of a removal or unmapping: what goes, [Start, End). Of a remapping: from Start to To, End-Start bytes.
	Start, End, To uint64
	// Of a fork: the descriptor of the child's memory, which the reader now owns.
	Child int
}

// Messages is room for what one Read returns.
type Messages struct {
	raw [64 * messageSize]byte
	n   int // bytes
}

// FromDescriptor takes over a descriptor that another process sent. If it is no userfaultfd it is closed, and the
// error is ErrNotUffd.
func FromDescriptor(fd int) (*FD, error) {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil && name != "anon_inode:[userfaultfd]" {
		err = fmt.Errorf("descriptor of %q: %w", name, ErrNotUffd)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // a blocking one cannot be polled
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &FD{fd}, nil
}

// Fd is the descriptor's number, to poll or to send it. It stays f's.
func (f *FD) Fd() int { return f.fd }

// Close closes it. The kernel's registrations end when every process has.
func (f *FD) Close() error { return unix.Close(f.fd) }

// Read takes what messages wait, at least one, into m. It returns unix.EAGAIN if none does.
func (f *FD) Read(m *Messages) error {
	m.n = 0
	for {
		n, err := unix.Read(f.fd, m.raw[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n <= 0 || n%messageSize != 0:
			return fmt.Errorf("userfaultfd: read of %d bytes", n)
		}
		m.n = n
		return nil
	}
}

// Len is how many messages there are.
func (m *Messages) Len() int { return m.n / messageSize }

// At returns message i. Events that are not known have only their number.
func (m *Messages) At(i int) Message {
	p := m.raw[i*messageSize : (i+1)*messageSize]
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(p[8+8*at:]) }
	msg := Message{Event: Event(p[0]), Child: -1}
	switch msg.Event {
	case EventPagefault:
		msg.Flags, msg.Address = word(0), word(1)
	case EventFork:
		msg.Child = int(binary.NativeEndian.Uint32(p[8:]))
	case EventRemap:
		msg.Start, msg.To = word(0), word(1)
		msg.End = msg.Start + word(2)
	case EventRemove, EventUnmap:
		msg.Start, msg.End = word(0), word(1)
	}
	return msg
}

// Gone says whether the process whose memory this is has ended.
func (f *FD) Gone() bool {
	// Nothing can be registered so low, so that only the check for the process is reached.
	const nowhere, page = 64 << 10, 4 << 10
	_, err := f.Zero(nowhere, page, false)
	return err == unix.ESRCH
}
