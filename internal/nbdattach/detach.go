package nbdattach

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/loopdev"
)

// Detach writes out what the kernel has cached of a device, and disconnects it; one that is mounted it leaves alone, and
// the error Is ErrInUse, like one that another program connected (ErrForeign). With force it disconnects at once, also
// where no server takes what would be written out; what is not written yet fails.
func Detach(name string, force bool) error {
	index, err := ParseDevice(name)
	if err != nil {
		return err
	}
	d, err := openDriver()
	if err != nil {
		return err
	}
	defer d.close()
	all, err := d.connected()
	if err != nil {
		return err
	}
	if !slices.Contains(all, index) {
		return fmt.Errorf("%s: %w; see lsad attach --list", name, ErrDevice)
	}
	if force {
		return d.disconnect(index)
	}
	if err := ours(index); err != nil {
		return err
	}
	if err := settle(index).disconnect(d); err != nil {
		return err
	}
	// Whoever watched it lets go of it before the caller may want to attach it anew.
	for until := time.Now().Add(letGoTime); watched(index) && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// letGoTime is how long a watcher is given to notice that its device was detached.
const letGoTime = 5 * time.Second

// ours is the error of a device that another program connected, as far as the kernel tells.
func ours(index int) error {
	if _, ok := parseBackend(readSys(index, "backend")); ok {
		return nil
	}
	if !isConnected(index) {
		return fmt.Errorf("%s: %w: something merely has it open", path(index), ErrDevice)
	}
	return foreign(path(index))
}

func foreign(device string) error {
	return fmt.Errorf("%s is %w: disconnect it with that program (such as nbd-client -d %s), or with lsad detach --force %s, which writes nothing out", device, ErrForeign, device, device)
}

// settled is a device of which nothing is cached. It is held, so that nobody can mount it, until it is disconnected.
type settled struct {
	index, fd int // fd is negative where the device is gone
	err       error
}

// settle writes out the kernel's cache of the device. The error Is ErrInUse if somebody else may have more. It opens
// the device for reading: udev looks anew at one that was open for writing, which would be when it is gone.
func settle(index int) settled {
	if loops := loopdev.Over(path(index)); len(loops) > 0 {
		return settled{index, -1, fmt.Errorf("%s is %w by %s: unmount what is on that and detach it (losetup -d)", path(index), ErrInUse, strings.Join(loops, ", "))}
	}
	fd, err := unix.Open(path(index), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return settled{index, -1, fmt.Errorf("%s is %w: unmount it, or end what else has it", path(index), ErrInUse)}
	case err != nil:
		return settled{index, -1, nil} // gone: nothing is cached that could be written
	}
	if err := unix.Fsync(fd); err != nil {
		unix.Close(fd)
		return settled{index, -1, notWritten(path(index), err)}
	}
	return settled{index, fd, nil}
}

func notWritten(device string, err error) error {
	return fmt.Errorf("write out what is cached of %s: %w; is its server there? lsad detach --force %s disconnects it without, and what was not written is lost", device, err, device)
}

// disconnect ends the hold, too. The kernel lets the device go when it is closed.
func (s settled) disconnect(d *driver) error {
	if s.err != nil {
		return s.err
	}
	err := d.disconnect(s.index)
	s.release()
	return err
}

func (s settled) release() {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
}
