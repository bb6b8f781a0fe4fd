package guestmem

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// A skeleton is what is left of a real guest's RAM when only the pages are kept
// that lead to its free pages: the note, page tables, memory map and zones. In
// testdata they are files of zstd: the number of pages of RAM, then for each page
// that was kept its number and its bytes; numbers are u64. RAM begins at 0.
//
// To make one, stop a guest whose RAM is on a file, and run
//
//	LSAD_GUESTMEM_RAM=FILE go test -run TestMakeSkeleton ./kvmhook/guestmem
const skeletonEnv = "LSAD_GUESTMEM_RAM"

// maxSkeleton bounds the RAM of a skeleton, in pages.
const maxSkeleton = 1 << 18

func TestMakeSkeleton(t *testing.T) {
	path := os.Getenv(skeletonEnv)
	if path == "" {
		t.Skip(skeletonEnv + " names no guest's RAM to make a skeleton of")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMemory([]Range{{Data: raw}})
	if err != nil {
		t.Fatal(err)
	}
	notes, _, err := findNotes(t.Context(), m)
	if err != nil || len(notes) != 1 {
		t.Fatalf("%d notes, %v", len(notes), err)
	}
	f, used := judgeUsed(t, m, notes[0])
	for i := range uint64(2) {
		used.Add(notes[0].gpas[0]>>pageShift+i, 1)
	}
	out := binary.LittleEndian.AppendUint64(nil, m.Pages())
	for first, n := range used.Runs() {
		for page := first; page < first+n; page++ {
			out = binary.LittleEndian.AppendUint64(out, page)
			out = append(out, m.Page(page)...)
		}
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", "linux-"+f.kernel.release+".zst")
	if err := os.WriteFile(name, enc.EncodeAll(out, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d pages, %d free", name, used.Count(), f.free)
}

// judgeUsed judges a note that must pass, and returns the pages it rests on.
func judgeUsed(t *testing.T, m *Memory, n note) (*finding, *PageSet) {
	t.Helper()
	k, err := readKernel(parseNote(n.text))
	if err != nil {
		t.Fatal(err)
	}
	used := NewPageSet(m.Pages())
	tables := newPageTables(m, k, used)
	if err := checkRoot(tables, k, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := readZones(tables, k); err != nil {
		t.Fatal(err)
	}
	if _, err := readBlocks(t.Context(), m, k, used); err != nil {
		t.Fatal(err)
	}
	f, err := judge(t.Context(), m, n, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f, used
}

// loadSkeleton returns the memory of a skeleton, with all else a hole.
func loadSkeleton(t testing.TB, path string) *Memory {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var pages, page uint64
	if err := binary.Read(r, binary.LittleEndian, &pages); err != nil || pages > maxSkeleton {
		t.Fatalf("%s: %d pages: %v", path, pages, err)
	}
	// A mapping, so that what is never touched takes no memory.
	data, err := unix.Mmap(-1, 0, int(pages*PageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(data) })
	kept := NewPageSet(pages)
	for binary.Read(r, binary.LittleEndian, &page) == nil {
		if _, err := io.ReadFull(r, data[page*PageSize:][:PageSize]); err != nil {
			t.Fatal(err)
		}
		kept.Add(page, 1)
	}
	var extents []Extent
	for first, n := range kept.Runs() {
		extents = append(extents, Extent{first * PageSize, n * PageSize})
	}
	m, err := NewMemory([]Range{{Data: data, Extents: extents}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSkeletons holds that real kernels are read as they were when their guests
// were stopped. A moment before, their /proc/zoneinfo had said, in the order of
// the table, 28,367, 30,412, 34,016, 26,759 and 24,740.
func TestSkeletons(t *testing.T) {
	for release, want := range map[string]struct {
		free   uint64
		levels int
	}{
		"6.12.117+deb12-cloud-amd64": {28359, 4},
		"6.1.0-56-cloud-amd64":       {30398, 5},
		"5.10.0-32-cloud-amd64":      {34029, 4},
		"6.18.15+deb13-cloud-amd64":  {26759, 5},
		"7.3.4+deb13-cloud-amd64":    {24985, 5},
	} {
		t.Run(release, func(t *testing.T) {
			m := loadSkeleton(t, filepath.Join("testdata", "linux-"+release+".zst"))
			set, r, err := FreePages(t.Context(), m, Options{})
			if err != nil || set.Count() != want.free || r.ZoneFree != want.free ||
				max(r.ZoneStat, want.free)-min(r.ZoneStat, want.free) > 125 || // what one processor may hold back
				r.Levels != want.levels || r.Kernel != release {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// FuzzFreePages changes words of real kernels' memory, in the places that a walk
// reads, and holds that whatever comes of it is an answer.
func FuzzFreePages(f *testing.F) {
	var guests []*Memory
	names, err := filepath.Glob("testdata/*.zst")
	if err != nil || len(names) == 0 {
		f.Fatal("no skeletons: ", err)
	}
	for _, name := range names {
		guests = append(guests, loadSkeleton(f, name))
	}
	guests = append(guests, small().build(f).memory(f))
	whole := make([]*PageSet, len(guests))
	for i, m := range guests {
		if whole[i], _, err = FreePages(f.Context(), m, Options{}); whole[i] == nil || err != nil {
			f.Fatal("a guest that is whole is not believed", err)
		}
	}
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add(bytes.Repeat([]byte{2, 0, 1}, 50))
	f.Fuzz(func(t *testing.T, changes []byte) {
		if len(changes) == 0 {
			return
		}
		which := int(changes[0]) % len(guests)
		m := guests[which]
		for changes = changes[1:]; len(changes) >= 14; changes = changes[14:] {
			word := placeOf(m, binary.LittleEndian.Uint32(changes), binary.LittleEndian.Uint16(changes[4:]))
			was := [8]byte(word)
			copy(word, changes[6:14])
			defer copy(word, was[:])
		}
		set, r, err := FreePages(t.Context(), m, Options{})
		if err != nil {
			t.Fatalf("%+v, %v", r, err)
		}
		if (set != nil) != r.Trusted || r.Why == "" {
			t.Errorf("%d pages, %+v", set.Count(), r)
		}
		// What passes can differ from the truth by the block per zone that may be on
		// its way, and by a forged memory map that is whole.
		if set != nil && set.Count()+r.Poisoned != r.Free {
			t.Errorf("%d pages, %+v", set.Count(), r)
		}
	})
}

// placeOf returns a word of memory: of the n-th page that is no hole, modulo
// their number, so that changes hit what is read.
func placeOf(m *Memory, n uint32, off uint16) []byte {
	r := m.Ranges()[int(n)%len(m.Ranges())]
	var pages uint64
	for _, e := range r.extents() {
		pages += e.Len / PageSize
	}
	page := uint64(n) % pages
	for _, e := range r.extents() {
		if page < e.Len/PageSize {
			at := e.Off + page*PageSize + uint64(off)%(PageSize/8)*8
			return r.Data[at : at+8]
		}
		page -= e.Len / PageSize
	}
	panic("no such page")
}
