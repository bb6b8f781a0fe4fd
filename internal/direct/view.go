package direct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxDevices bounds the slots of an array: a row has eight bits for one.
const maxDevices = 256

// view is one server's array, as long as that server and its devices stay what they are. Its files are never waited
// for: they are opened once and closed when nobody reads any more.
type view struct {
	usesPath string
	base     uint64
	devices  []string

	mu     sync.RWMutex
	closed bool
	uses   int   // descriptor
	fds    []int // by slot, -1 where there is none
}

func openView(a *Answer) (*view, error) {
	if len(a.Devices) > maxDevices {
		return nil, fmt.Errorf("%d devices, there can be %d", len(a.Devices), maxDevices)
	}
	v := &view{usesPath: a.Uses, base: a.Base, devices: a.Devices, uses: -1}
	if err := v.open(); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *view) open() (err error) {
	if v.uses, err = open(v.usesPath); err != nil {
		return err
	}
	for _, path := range v.devices {
		fd := -1
		if path != "" {
			if fd, err = open(path); err != nil {
				return err
			}
		}
		v.fds = append(v.fds, fd)
	}
	return nil
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

func (v *view) is(a *Answer) bool {
	return v.usesPath == a.Uses && v.base == a.Base && slices.Equal(v.devices, a.Devices)
}

func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.closed = true
	for _, fd := range append(v.fds, v.uses) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Why a read did not come to anything.
var (
	errWouldBlock = errors.New("it takes a wait for the disk")
	errElsewhere  = errors.New("only the server knows")
	errStale      = errors.New("the block may lie somewhere else by now")
)

// read fills p with the blocks of rows, unless an error says why not. With wait unset it takes what is in memory.
func (v *view) read(p []byte, rows []Row, wait bool) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed {
		return errStale
	}
	for len(rows) > 0 {
		n := 1
		if rows[0] == Zeros() {
			clear(p[:BlockSize])
		} else {
			for n < len(rows) && rows[n].follows(rows[0], n) {
				n++
			}
			if err := v.readRun(p[:n*BlockSize], rows[:n], wait); err != nil {
				return err
			}
		}
		p, rows = p[n*BlockSize:], rows[n:]
	}
	return nil
}

// readRun reads blocks that lie one behind the other.
func (v *view) readRun(p []byte, rows []Row, wait bool) error {
	first := rows[0]
	if !first.told() || int(first.slot()) >= len(v.fds) || v.fds[first.slot()] < 0 {
		return errElsewhere
	}
	if err := readFull(v.fds[first.slot()], p, first.offset(), wait); err != nil {
		return err
	}
	for i, r := range rows {
		if crc32.Checksum(p[i*BlockSize:][:BlockSize], castagnoli) != r.crc {
			return errStale
		}
	}
	var number [numberSize]byte
	if readFull(v.uses, number[:], int64(first.index())*numberSize, true) != nil ||
		binary.LittleEndian.Uint64(number[:]) != v.base+uint64(first.use) {
		return errStale
	}
	return nil
}

func readFull(fd int, p []byte, off int64, wait bool) error {
	for len(p) > 0 {
		var n int
		var err error
		if wait {
			n, err = unix.Pread(fd, p, off)
		} else {
			n, err = readNow(fd, p, off)
		}
		switch {
		case err == unix.EINTR:
			continue
		case !wait && (err != nil || n < len(p)): // which kind of error shows when it is read in earnest
			return errWouldBlock
		case err != nil:
			return errElsewhere
		case n == 0:
			return errStale
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
