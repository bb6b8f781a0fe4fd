package direct

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// numbers in the file. Segments share them where there are more: that costs a reader a needless question now and then.
	numbers    = 1 << indexBits
	numberSize = 8 // bytes
)

// Uses is the server's side: the file of numbers. The number of a segment is the sum of Base, which is another one for
// each server and cannot be guessed from an earlier one, and of how often the segment was emptied since.
type Uses struct {
	path   string
	file   *os.File
	counts [numbers]atomic.Uint32
	base   atomic.Uint64
	off    atomic.Bool // nobody can be told of changes any more

	mu sync.Mutex
}

// CreateUses makes the file, or takes over that of an earlier server: whoever still reads by its numbers sees at once
// that they are no more. It must be called before the array changes anything, by one process at a time.
func CreateUses(path string) (*Uses, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("numbers for direct reads: %w", err)
	}
	u := &Uses{path: path, file: f}
	if err := u.Renew(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return u, nil
}

// Path of the file.
func (u *Uses) Path() string { return u.path }

// Close leaves the file as it is: it holds until another server takes it over.
func (u *Uses) Close() error { return u.file.Close() }

// Base is what the rows that are made from now on are good for, and whether they are good at all.
func (u *Uses) Base() (base uint64, ok bool) { return u.base.Load(), !u.off.Load() }

// Renew makes every row that was told so far useless.
func (u *Uses) Renew() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var base [numberSize]byte
	rand.Read(base[:]) // cannot fail
	u.base.Store(binary.LittleEndian.Uint64(base[:]))
	all := make([]byte, 0, numbers*numberSize)
	for i := range u.counts {
		all = binary.LittleEndian.AppendUint64(all, u.number(i))
	}
	_, err := u.file.WriteAt(all, 0)
	return u.orNothing(err)
}

// Emptied has to be called when nothing in the map refers to a segment any more, every read that began before has
// ended, and nothing has been written to it yet. An error means that readers could not be told, in any way: the
// segment must not be used.
func (u *Uses) Emptied(slot uint8, segment uint32) error {
	if u.off.Load() {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	i := index(slot, segment)
	u.counts[i].Add(1)
	var number [numberSize]byte
	binary.LittleEndian.PutUint64(number[:], u.number(int(i)))
	_, err := u.file.WriteAt(number[:], int64(i)*numberSize)
	return u.orNothing(err)
}

// orNothing leaves no numbers at all where they could not be written: then no row is good.
func (u *Uses) orNothing(err error) error {
	if err == nil {
		return nil
	}
	u.off.Store(true)
	if err2 := u.file.Truncate(0); err2 != nil {
		return fmt.Errorf("numbers for direct reads: %w", errors.Join(err, err2))
	}
	return nil
}

func (u *Uses) number(i int) uint64 { return u.base.Load() + uint64(u.counts[i].Load()) }

func index(slot uint8, segment uint32) uint16 { return uint16(uint32(slot)*40503 + segment) }

// Row of a block that lies at an offset of the device in a slot, in one of its segments. The caller keeps the segment
// from being emptied meanwhile.
func (u *Uses) Row(slot uint8, segment uint32, off int64, crc uint32) Row {
	i := index(slot, segment)
	return makeRow(slot, i, off, crc, u.counts[i].Load())
}
