package kvmhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

// handshakeTimeout is how long a VMM may take to send its mappings.
const handshakeTimeout = 10 * time.Second

// receive reads the handshake of a VMM: the mappings, and the userfaultfd that comes with them. On an error every
// descriptor that came is closed.
func receive(ctx context.Context, conn *net.UnixConn) (regions []Region, fd *uffd.FD, err error) {
	conn.SetReadDeadline(time.Now().Add(handshakeTimeout))
	defer conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var fds []int
	defer func() {
		if err == nil {
			fd, err = takeDescriptor(&fds)
		}
		for _, n := range fds {
			unix.Close(n)
		}
	}()
	buf := make([]byte, 0, 4096)
	oob := make([]byte, unix.CmsgSpace(8*4))
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= maxHandshake {
				return nil, nil, fmt.Errorf("%w: more than %d bytes", ErrHandshake, maxHandshake)
			}
			buf = append(buf, 0)[:len(buf)]
		}
		n, oobn, flags, _, err := conn.ReadMsgUnix(buf[len(buf):cap(buf)], oob)
		got, oobErr := descriptors(oob[:oobn])
		fds = append(fds, got...)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case err != nil:
			return nil, nil, fmt.Errorf("%w: %w", ErrHandshake, err)
		case oobErr != nil:
			return nil, nil, fmt.Errorf("%w: what came with the mappings: %w", ErrHandshake, oobErr)
		case flags&unix.MSG_CTRUNC != 0 || len(fds) > 1:
			return nil, nil, fmt.Errorf("%w: want one userfaultfd, got %d descriptors or more", ErrHandshake, len(fds))
		case n == 0:
			return nil, nil, fmt.Errorf("%w: it ends after %d bytes", ErrHandshake, len(buf))
		}
		buf = buf[:len(buf)+n]
		if regions, err = parseRegions(buf); !errors.Is(err, errIncomplete) {
			return regions, nil, err
		}
	}
}

// descriptors takes what came as SCM_RIGHTS.
func descriptors(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		if messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, err
		}
		all = append(all, fds...)
	}
	return all, nil
}

// takeDescriptor makes a userfaultfd of the one descriptor that came.
func takeDescriptor(fds *[]int) (*uffd.FD, error) {
	if len(*fds) == 0 {
		return nil, fmt.Errorf("%w: the mappings came without a userfaultfd", ErrHandshake)
	}
	n := (*fds)[0]
	*fds = nil
	fd, err := uffd.FromDescriptor(n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return fd, nil
}
