package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lsad/internal/uring"
)

// controlPath is where the driver takes commands about devices.
const controlPath = "/dev/ublk-control"

// command has the driver carry out a command about a device, and waits for its end. buf, which may be nil, is read
// or written by the driver. Each command has a ring of its own: they are few, and one may wait for another.
func command(op uint32, c control, buf []byte) error {
	f, err := os.OpenFile(controlPath, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w (%s does not exist): load it with modprobe ublk_drv; it takes Linux 6.1 and CONFIG_BLK_DEV_UBLK", ErrNoDriver, controlPath)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w: run the server as root, or with CAP_SYS_ADMIN and access to /dev/ublk*", ErrPermission, err)
	case err != nil:
		return err
	}
	defer f.Close()
	ring, err := uring.New(1, uring.Options{LongCmd: true})
	if err != nil {
		return err
	}
	defer ring.Close()
	sqe, err := ring.Prepare()
	if err != nil {
		return err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(buf) > 0 {
		pin.Pin(&buf[0])
		c.addr, c.len = uring.Address(&buf[0]), uint16(len(buf))
	}
	sqe.Op, sqe.FD, sqe.Off = uring.OpCmd, int32(f.Fd()), uint64(op)
	sqe.SetCmd(c.encode())
	if err := ring.Submit(1); err != nil {
		return err
	}
	done, ok := ring.Next()
	switch {
	case !ok:
		return errors.New("ublk: a command ended without a result")
	case done.Res == -int32(unix.EPERM), done.Res == -int32(unix.EACCES):
		return fmt.Errorf("%w: %w: run the server as root, or with CAP_SYS_ADMIN", ErrPermission, unix.Errno(-done.Res))
	case done.Res < 0:
		return unix.Errno(-done.Res)
	}
	return nil
}

// info asks the kernel about a device. The error Is ErrNotFound if there is none.
func info(id int) (Info, error) {
	var i Info
	buf := make([]byte, infoSize)
	err := command(cmdGetInfo, control{id: uint32(id)}, buf)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return i, fmt.Errorf("%s: %w", blockPath(id), ErrNotFound)
	}
	if err != nil {
		return i, fmt.Errorf("%s: get its state: %w", blockPath(id), err)
	}
	i.decode(buf)
	return i, nil
}

func getParams(id int) (params, error) {
	var p params
	buf := make([]byte, paramsSize)
	le.PutUint32(buf, paramsSize)
	if err := command(cmdGetParams, control{id: uint32(id)}, buf); err != nil {
		return p, fmt.Errorf("%s: get its parameters: %w", blockPath(id), err)
	}
	p.decode(buf)
	return p, nil
}

func charPath(id int) string  { return "/dev/ublkc" + strconv.Itoa(id) }
func blockPath(id int) string { return "/dev/ublkb" + strconv.Itoa(id) }

// Available says what keeps this machine from having ublk devices, if anything does.
func Available() error {
	// A device that cannot be: the driver answers that it does not know it.
	err := command(cmdGetInfo, control{id: 1<<31 - 1}, make([]byte, infoSize))
	if errors.Is(err, ErrNoDriver) || errors.Is(err, ErrPermission) || errors.Is(err, uring.ErrUnavailable) {
		return err
	}
	return nil
}

// Devices returns all ublk devices of the machine, whoever made them, by number. Without the driver there are none.
func Devices() ([]Info, error) {
	names, err := filepath.Glob("/dev/ublkc*")
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, name := range names {
		id, err := strconv.Atoi(strings.TrimPrefix(name, "/dev/ublkc"))
		if err != nil {
			continue
		}
		i, err := info(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Info) int { return a.ID - b.ID })
	return all, nil
}

// remove deletes a stopped device. Who still has it open does not keep that waiting, where the kernel can.
func remove(id int) error {
	err := command(cmdDeleteAsync, control{id: uint32(id)}, nil)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		err = command(cmdDelete, control{id: uint32(id)}, nil)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", blockPath(id), err)
	}
	return nil
}
