package membench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// bare is the least that a page server can be: it copies a chunk of a mapped file around each fault.
type bare struct {
	file  []byte
	chunk int64 // bytes

	base uint64
	fd   *uffd.FD
	stop int // eventfd
	wg   sync.WaitGroup
	err  error
}

// serve takes one VMM's handshake on l and then its faults, until close.
func (b *bare) serve(l *net.UnixListener) error {
	conn, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer conn.Close()
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return err
	}
	var regions []struct {
		Base uint64 `json:"base_host_virt_addr"`
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("handshake: %d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err = errors.Join(err, json.Unmarshal(buf[:n], &regions)); err != nil || len(fds) != 1 || len(regions) != 1 {
		return fmt.Errorf("handshake: %d descriptors, %d mappings: %w", len(fds), len(regions), err)
	}
	if b.fd, err = uffd.FromDescriptor(fds[0]); err != nil {
		return err
	}
	if b.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	b.base = regions[0].Base
	b.wg.Go(func() { b.err = b.faults() })
	return nil
}

func (b *bare) faults() error {
	var messages uffd.Messages
	fds := []unix.PollFd{{Fd: int32(b.fd.Fd()), Events: unix.POLLIN}, {Fd: int32(b.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return err
		}
		if fds[1].Revents != 0 {
			return nil
		}
		if err := b.fd.Read(&messages); err != nil && err != unix.EAGAIN {
			return err
		}
		for i := range messages.Len() {
			if m := messages.At(i); m.Event == uffd.EventPagefault {
				off := int64(m.Address - b.base)
				off -= off % b.chunk
				_, err := b.fd.Copy(b.base+uint64(off), b.file[off:min(off+b.chunk, int64(len(b.file)))], true)
				if err != nil && err != unix.EEXIST && err != unix.ESRCH {
					return err
				}
			}
		}
	}
}

func (b *bare) close() error {
	if b.fd == nil {
		return nil
	}
	unix.Write(b.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	b.wg.Wait()
	unix.Close(b.stop)
	return errors.Join(b.err, b.fd.Close())
}
