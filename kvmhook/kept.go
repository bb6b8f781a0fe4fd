package kvmhook

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Kept is what another hook needs to go on where one was killed, if somebody else has it open too: the userfaultfd, and
// a memory file with what is known of the pages.
//
// Which pages are there the kernel knows, and refuses to install one twice. It does not know which ones were removed:
// their content must never come back. So the file says which pages are settled. What is not noted there for want of
// time is content that was just installed, which does no harm, or a removal whose event was just read: for as long as
// that may be, the file says so, and nobody can go on.
type Kept struct{ Userfault, State *os.File }

// ErrNotKept says that a hook cannot go on where an earlier one was.
var ErrNotKept = errors.New("the VM cannot be taken over")

// Words of the memory file, of eight bytes each.
const (
	keptMagic   = 0 // keptName
	keptImage   = 1 // size of the image, in bytes
	keptTaking  = 2 // 1 while events are taken
	keptRegions = 3 // how many
	keptFirst   = 4 // four words for each: base, size, offset, size of a page; then their pages' bits; see keptIdentity

	keptRegion = 4
	// keptName changes with the layout.
	keptName = 0x31747065_6b617370
)

// kept is the memory file. A nil one keeps nothing.
type kept struct {
	file  *os.File
	mem   []byte
	words []atomic.Uint64
}

func bitWords(r Region) int { return int((r.Size/r.PageSize + 63) / 64) }

// newKept makes the memory file of a VMM that has just come.
func newKept(regions []Region, image int64, identity string) (*kept, error) {
	n := keptFirst
	for _, r := range regions {
		n += keptRegion + bitWords(r)
	}
	at := n
	n += identityWords(identity)
	fd, err := unix.MemfdCreate("lsad-hook", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memory file")
	if err := f.Truncate(int64(n) * 8); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	k, err := mapKept(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	k.words[keptImage].Store(uint64(image))
	k.words[keptRegions].Store(uint64(len(regions)))
	for i, r := range regions {
		for j, v := range [keptRegion]uint64{r.Base, r.Size, r.Offset, r.PageSize} {
			k.words[keptFirst+keptRegion*i+j].Store(v)
		}
	}
	k.writeIdentity(at, identity)
	k.words[keptMagic].Store(keptName)
	return k, nil
}

func mapKept(f *os.File) (*kept, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	n := info.Size()
	if !info.Mode().IsRegular() || n < keptFirst*8 || n%8 != 0 || n > math.MaxInt32*8 {
		return nil, fmt.Errorf("%w: its memory file has %d bytes", ErrNotKept, n)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory file: %w", err)
	}
	return &kept{f, mem, asWords(mem)}, nil
}

// openKept reads the memory file that an earlier hook left of an image of this source. On an error it is closed.
func openKept(f *os.File, src Source) (k *kept, regions []Region, err error) {
	k, err = mapKept(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	if regions, err = k.read(src); err != nil {
		k.close()
		return nil, nil, err
	}
	return k, regions, nil
}

func (k *kept) read(src Source) ([]Region, error) {
	image := src.Size()
	word := func(i int) uint64 { return k.words[i].Load() }
	n := word(keptRegions)
	switch {
	case word(keptMagic) != keptName:
		return nil, fmt.Errorf("%w: its memory file is not one, or of another version of this program", ErrNotKept)
	case word(keptImage) != uint64(image):
		return nil, fmt.Errorf("%w: its image has %d bytes, this one %d", ErrNotKept, word(keptImage), image)
	case word(keptTaking) != 0:
		return nil, fmt.Errorf("%w: the hook before was killed at a moment at which pages may have been removed unseen", ErrNotKept)
	case n == 0 || n > maxRegions || keptFirst+keptRegion*int(n) > len(k.words):
		return nil, fmt.Errorf("%w: its memory file has %d mappings", ErrNotKept, n)
	}
	regions, at := make([]Region, n), keptFirst+keptRegion*int(n)
	for i := range regions {
		first := keptFirst + keptRegion*i
		w := wireRegion{new(word(first)), new(word(first + 1)), new(word(first + 2)), nil, new(word(first + 3))}
		r, err := w.region()
		if err != nil {
			return nil, fmt.Errorf("%w: mapping %d: %w", ErrNotKept, i, err)
		}
		if bitWords(r) > len(k.words)-at {
			return nil, fmt.Errorf("%w: its memory file is too short", ErrNotKept)
		}
		regions[i], at = r, at+bitWords(r)
	}
	if err := checkRegions(regions, image); err != nil {
		return nil, err
	}
	return regions, k.checkIdentity(at, src)
}

// attach has a mapping note in the file what is settled, and know what is already.
func (k *kept) attach(i int, m *mapping, regions []Region) {
	if k == nil {
		return
	}
	at := keptFirst + keptRegion*len(regions)
	for _, r := range regions[:i] {
		at += bitWords(r)
	}
	bits := k.words[at : at+bitWords(regions[i])]
	for page := range m.states {
		if bits[page/64].Load()&(1<<(page%64)) != 0 {
			m.states[page] = settled
		}
	}
	m.kept, m.keptBase = bits, &k.words[keptFirst+keptRegion*i]
}

// taking says that events are about to be read, and taken that what they say is noted.
func (k *kept) taking() {
	if k != nil {
		k.words[keptTaking].Store(1)
	}
}

func (k *kept) taken() {
	if k != nil {
		k.words[keptTaking].Store(0)
	}
}

func (k *kept) close() {
	if k != nil {
		unix.Munmap(k.mem)
		k.file.Close()
	}
}
