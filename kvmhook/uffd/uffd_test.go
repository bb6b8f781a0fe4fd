package uffd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// message is one as the kernel writes it: the event, seven bytes that mean nothing, three words.
func message(e Event, words ...uint64) []byte {
	p := make([]byte, messageSize)
	p[0] = byte(e)
	for i, w := range words {
		binary.NativeEndian.PutUint64(p[8+8*i:], w)
	}
	return p
}

func TestMessages(t *testing.T) {
	tests := []struct {
		raw  []byte
		want Message
	}{
		{message(EventPagefault, FaultWrite, 0x7f0000001000, 99), Message{Event: EventPagefault, Flags: 1, Address: 0x7f0000001000, Child: -1}},
		{message(EventRemove, 0x1000, 0x3000), Message{Event: EventRemove, Start: 0x1000, End: 0x3000, Child: -1}},
		{message(EventUnmap, 0x1000, 0x3000), Message{Event: EventUnmap, Start: 0x1000, End: 0x3000, Child: -1}},
		{message(EventRemap, 0x1000, 0x9000, 0x2000), Message{Event: EventRemap, Start: 0x1000, End: 0x3000, To: 0x9000, Child: -1}},
		{message(EventFork, 17), Message{Event: EventFork, Child: 17}},
		{message(0x99, 1, 2, 3), Message{Event: 0x99, Child: -1}},
	}
	var m Messages
	for i, test := range tests {
		copy(m.raw[i*messageSize:], test.raw)
		m.n += messageSize
	}
	if m.Len() != len(tests) {
		t.Fatalf("%d messages", m.Len())
	}
	for i, test := range tests {
		if got := m.At(i); got != test.want {
			t.Errorf("message %d: got %+v, want %+v", i, got, test.want)
		}
	}
}

// What is no userfaultfd is refused, and closed.
func TestFromDescriptor(t *testing.T) {
	fd, err := unix.Dup(int(os.Stdin.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FromDescriptor(fd); !errors.Is(err, ErrNotUffd) {
		t.Errorf("got %v", err)
	}
	if err := unix.Close(fd); err != unix.EBADF {
		t.Errorf("the descriptor is still open: %v", err)
	}
}

// Pages of this process that nobody touches before they are there.
func TestInstall(t *testing.T) {
	f, err := Open(FeatureEventRemove)
	if err != nil {
		t.Skipf("no userfaultfd here (it needs root, or the sysctl vm.unprivileged_userfaultfd): %v", err)
	}
	defer f.Close()
	const page = 4096
	mem, err := Map(4 * page)
	if err != nil {
		t.Fatal(err)
	}
	defer Unmap(mem)
	src, err := Map(2 * page)
	if err != nil {
		t.Fatal(err)
	}
	defer Unmap(src)
	copy(src, bytes.Repeat([]byte{7}, 2*page))
	if err := f.Register(mem); err != nil {
		t.Fatal(err)
	}
	at := Address(mem)
	if n, err := f.Copy(at+page, src[:page], true); n != page || err != nil {
		t.Errorf("copy: %d, %v", n, err)
	}
	if n, err := f.Copy(at, src, true); n != page || err != unix.EAGAIN {
		t.Errorf("copy of two pages, the second of which is there: %d, %v", n, err)
	}
	if n, err := f.Copy(at+page, src[:page], true); n != 0 || err != unix.EEXIST {
		t.Errorf("copy again: %d, %v", n, err)
	}
	if n, err := f.Zero(at+2*page, 2*page, true); n != 2*page || err != nil {
		t.Errorf("zero: %d, %v", n, err)
	}
	if n, err := f.Zero(at+2*page, page, true); n != 0 || err != unix.EEXIST {
		t.Errorf("zero again: %d, %v", n, err)
	}
	if n, err := f.Copy(at+64*page, src[:page], true); n != 0 || err != unix.ENOENT {
		t.Errorf("copy to where nothing is registered: %d, %v", n, err)
	}
	if err := f.Wake(at, 4*page); err != nil {
		t.Errorf("wake: %v", err)
	}
	want := append(bytes.Repeat([]byte{7}, 2*page), make([]byte, 2*page)...)
	if !bytes.Equal(mem, want) {
		t.Error("wrong content")
	}
	if f.Gone() {
		t.Error("this process is said to have ended")
	}
	if err := f.Read(new(Messages)); err != unix.EAGAIN {
		t.Errorf("read without events: %v", err)
	}
	if !Resident(mem) {
		t.Error("pages that are there are said not to be")
	}
}
