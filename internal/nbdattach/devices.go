package nbdattach

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrNoDriver: the kernel has no NBD client, or it is not loaded.
	ErrNoDriver = errors.New("the kernel's NBD client is not there")
	// ErrPermission: only root may attach.
	ErrPermission = errors.New("no permission to attach NBD devices")
	// ErrInUse: the device is connected to something else, or mounted.
	ErrInUse = errors.New("in use")
	// ErrWatched: another process watches the device.
	ErrWatched = errors.New("watched by another process")
	// ErrChanged: the server is not in the state in which it was left.
	ErrChanged = errors.New("the server is not the one that was attached")
	// ErrTimeout: no connection could be made in time.
	ErrTimeout = errors.New("the server did not come back in time")
	// ErrDevice: the device is not attached.
	ErrDevice = errors.New("not an attached NBD device")
	// ErrName: not the name of an NBD device, or of one that the kernel cannot have.
	ErrName = errors.New("not the name of an NBD device")
	// ErrForeign: the device was not connected by an Attachment.
	ErrForeign = errors.New("connected by another program")
	// ErrTLS: the kernel's client cannot encrypt.
	ErrTLS = errors.New("the kernel's NBD client has no TLS")
)

// leastBlock is the logical block size of devices, in bytes, where the server does not want more: what partition
// tables of other servers expect.
const leastBlock = 512

func path(index int) string { return "/dev/nbd" + strconv.Itoa(index) }

// ParseDevice reads the number in /dev/nbdN.
func ParseDevice(name string) (int, error) {
	digits, ok := strings.CutPrefix(name, "/dev/nbd")
	n, err := strconv.ParseUint(digits, 10, 20)
	if !ok || err != nil || path(int(n)) != name {
		return 0, fmt.Errorf("%q is %w: it must be /dev/nbdN with a number N, such as /dev/nbd0, and not a partition of it", name, ErrName)
	}
	return int(n), nil
}

// lastDevice is the highest number of a device. Devices share the minor numbers of the driver, of 20 bits, with their
// partitions.
func lastDevice() int {
	partitions := uint64(31)
	if text, err := os.ReadFile("/sys/module/nbd/parameters/max_part"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 20); err == nil {
			partitions = n
		}
	}
	return (1<<20 - 1) >> bits.Len64(partitions)
}

// Info is one attached device.
type Info struct {
	Path        string
	SizeBytes   int64
	Target      string // a URI; "" if it was attached by another program
	Connections int    // 0 if it was attached by another program
	Incarnation string
	Watched     bool // somebody reconnects it when connections break
	Connected   bool // false if something merely has it open
}

// List returns the attached devices by number. Without the driver there are none.
func List() ([]Info, error) {
	d, err := openDriver()
	if errors.Is(err, ErrNoDriver) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.close()
	all, err := d.connected()
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	var out []Info
	for _, index := range all {
		out = append(out, describe(index))
	}
	return out, nil
}

func describe(index int) Info {
	i := Info{Path: path(index), Watched: watched(index), Connected: isConnected(index)}
	if size, err := sizeOf(index); err == nil {
		i.SizeBytes = size
	}
	if b, ok := parseBackend(readSys(index, "backend")); ok {
		i.Target, i.Connections, i.Incarnation = b.target, b.connections, b.incarnation
	}
	return i
}

// isConnected says whether the device was connected, and not merely opened: the driver lists both.
func isConnected(index int) bool { return readSys(index, "pid") != "" }

// readSys reads a file of the device in /sys, "" if it cannot.
func readSys(index int, name string) string {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path(index)), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// backend is what the kernel keeps with a device, and compares before it takes new sockets.
type backend struct {
	connections int
	incarnation string
	target      string
}

const backendMagic = "lsad1"

func (b backend) String() string {
	return fmt.Sprintf("%s %d %s %s", backendMagic, b.connections, b.incarnation, b.target)
}

func parseBackend(s string) (b backend, ok bool) {
	f := strings.SplitN(s, " ", 4)
	if len(f) != 4 || f[0] != backendMagic {
		return b, false
	}
	n, err := strconv.Atoi(f[1])
	if err != nil || n < 1 || n > MaxConnections {
		return b, false
	}
	return backend{n, f[2], f[3]}, true
}
