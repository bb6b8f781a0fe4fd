package memsvc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLayouts(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, test := range []struct {
		spec string
		size int64
		want [][]Range
	}{
		{"auto", 2 * gib, [][]Range{{{0, 2 * gib}}}},
		{"", 4 * gib, [][]Range{
			{{0, 3 * gib}, {4 * gib, gib}}, {{0, 2 * gib}, {4 * gib, 2 * gib}}, {{0, 3328 * mib}, {4 * gib, 768 * mib}}, {{0, 4 * gib}},
		}},
		{"pc", 3 * gib, [][]Range{{{0, 3 * gib}}}},
		{"pc", 3584 * mib, [][]Range{{{0, 3 * gib}, {4 * gib, 512 * mib}}}},
		{"q35", 2815 * mib, [][]Range{{{0, 2815 * mib}}}},
		{"q35", 2816 * mib, [][]Range{{{0, 2 * gib}, {4 * gib, 768 * mib}}}},
		{"firecracker", 3072 * mib, [][]Range{{{0, 3072 * mib}}}},
		{"firecracker", 3328 * mib, [][]Range{{{0, 3328 * mib}}, {{0, 3 * gib}, {4 * gib, 256 * mib}}}},
		{"firecracker", 4 * gib, [][]Range{{{0, 3328 * mib}, {4 * gib, 768 * mib}}, {{0, 3 * gib}, {4 * gib, gib}}}},
		{"cloud-hypervisor", 4 * gib, [][]Range{{{0, 3 * gib}, {4 * gib, gib}}}},
		{"flat", 8 * gib, [][]Range{{{0, 8 * gib}}}},
		{"0:4096,0x100000000:8192", 12288, [][]Range{{{0, 4096}, {4 * gib, 8192}}}},
		{"0:3GiB,0x100000000:0x40000000", 4 * gib, [][]Range{{{0, 3 * gib}, {4 * gib, gib}}}},
	} {
		got, err := Layouts(test.spec, test.size)
		if err != nil || !slices.EqualFunc(got, test.want, slices.Equal) {
			t.Errorf("layout %q of %d: %v, %v; want %v", test.spec, test.size, got, err, test.want)
		}
	}
	for _, bad := range []string{"0:4096", "0:12288,8192:4096", "4096:8192,0:4096", "0:12288:1", "x:12288", "1:12288", "0:-1,1:2", "PC", "0:", "0:12KB", "0:GiB"} {
		if got, err := Layouts(bad, 12288); !errors.Is(err, ErrInvalid) {
			t.Errorf("layout %q: %v, %v", bad, got, err)
		}
	}
	if names := LayoutNames(); !slices.Equal(names, []string{"pc", "q35", "firecracker", "cloud-hypervisor", "flat"}) {
		t.Errorf("names %v", names)
	}
	if _, err := Layouts("auto", 4097); !errors.Is(err, ErrInvalid) {
		t.Errorf("a file of 4097 bytes: %v", err)
	}
}

// elfCore makes a core of segments at addresses, whose memory begins at an odd place of the file.
func elfCore(t testing.TB, change func([]byte), segments map[uint64]string) *os.File {
	t.Helper()
	const ehdr, phdr = 64, 56
	le := binary.LittleEndian
	head := make([]byte, ehdr+len(segments)*phdr)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 4)  // ET_CORE
	le.PutUint16(head[18:], 62) // EM_X86_64
	le.PutUint32(head[20:], 1)
	le.PutUint64(head[32:], ehdr)
	le.PutUint16(head[52:], ehdr)
	le.PutUint16(head[54:], phdr)
	le.PutUint16(head[56:], uint16(len(segments)))
	le.PutUint16(head[58:], 64)
	body := make([]byte, 100)
	n := 0
	for gpa, kinds := range segments {
		p := head[ehdr+n*phdr:]
		le.PutUint32(p, 1) // PT_LOAD
		le.PutUint64(p[8:], uint64(len(head)+len(body)))
		le.PutUint64(p[24:], gpa)
		le.PutUint64(p[32:], uint64(len(kinds))*PageSize)
		le.PutUint64(p[40:], uint64(len(kinds))*PageSize)
		for _, kind := range kinds {
			body = append(body, pageOf(kind)...)
		}
		n++
	}
	all := append(head, body...)
	if change != nil {
		change(all)
	}
	path := filepath.Join(t.TempDir(), "core")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestImportELF(t *testing.T) {
	s := newService(t, newMemStore(), free(0, 1, 0x100000))
	src, err := OpenSource(elfCore(t, nil, map[uint64]string{0: "abc", 1 << 32: "d0e"}), "")
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Import(t.Context(), src, ImportOptions{Name: "vm", Paused: paused})
	if err != nil {
		t.Fatal(err)
	}
	want := []Range{{0, 3 * PageSize}, {1 << 32, 3 * PageSize}}
	if b := info.Manifest.Blocks[0]; info.Manifest.Source != "elf" || !slices.Equal(b.Ranges, want) {
		t.Errorf("manifest %+v", info.Manifest)
	}
	checkImage(t, s, "vm", "a c  e")
}

func TestBadFiles(t *testing.T) {
	two := map[uint64]string{0: "abc", 1 << 32: "de"}
	phdr := func(n int) int { return 64 + 56*n }
	for what, change := range map[string]func([]byte){
		"an executable":         func(b []byte) { b[16] = 2 },
		"a 32-bit core":         func(b []byte) { b[4] = 1 },
		"no segments":           func(b []byte) { b[56] = 0 },
		"headers beyond":        func(b []byte) { binary.LittleEndian.PutUint64(b[32:], 1<<40) },
		"memory beyond":         func(b []byte) { binary.LittleEndian.PutUint64(b[phdr(0)+8:], 1<<40) },
		"an odd address":        func(b []byte) { b[phdr(1)+24] = 1 },
		"an odd length":         func(b []byte) { b[phdr(0)+40]++ },
		"more file than memory": func(b []byte) { binary.LittleEndian.PutUint64(b[phdr(1)+32:], 1<<20) },
		"huge memory":           func(b []byte) { binary.LittleEndian.PutUint64(b[phdr(0)+40:], 1<<60) },
		"overlapping memory": func(b []byte) {
			binary.LittleEndian.PutUint64(b[phdr(0)+24:], PageSize)
			binary.LittleEndian.PutUint64(b[phdr(1)+24:], PageSize)
		},
	} {
		if _, err := OpenSource(elfCore(t, change, two), ""); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := OpenSource(elfCore(t, nil, two), "pc"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an ELF core with a layout: %v", err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := OpenSource(dir, ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := OpenSource(ramFile(t, ""), ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("an empty file: %v", err)
	}
}

// A file that becomes shorter in the middle is an error, and leaves nothing.
func TestShrinkingFile(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	f := ramFile(t, strings.Repeat("a", 300))
	src, err := OpenSource(f, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(5 * PageSize); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), src, ImportOptions{Name: "vm", Paused: paused}); err == nil {
		t.Error("half a file was imported")
	}
	if len(store.names()) != 0 {
		t.Errorf("there are %q", store.names())
	}
}

func TestSourceOfPieces(t *testing.T) {
	a, b := ramFile(t, "ab"), ramFile(t, "cde")
	blocks := []Block{{Name: "one", Size: 3 * PageSize}, {Name: "two", Size: 2 * PageSize}}
	src, err := NewSource("qemu", blocks, []Piece{
		{File: a, FileSize: 2 * PageSize, Size: 2 * PageSize}, {File: b, Off: PageSize, FileSize: 2*PageSize - 10, Size: 3 * PageSize},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5*PageSize)
	if err := src.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{pageOf('a'), pageOf('b'), pageOf('d'), pageOf('e')[:PageSize-10], make([]byte, 10+PageSize)}, nil)
	if !bytes.Equal(got, want) {
		t.Error("pieces are not where they belong")
	}
	if err := src.ReadAt(got, 1); err == nil {
		t.Error("read beyond the end")
	}
	for _, bad := range [][]Piece{nil, {{File: a, FileSize: 1, Size: PageSize}}, {{File: a, FileSize: 6 * PageSize, Size: 5 * PageSize}}, {{File: a, Off: -1, Size: 5 * PageSize}}} {
		if _, err := NewSource("raw", blocks, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("pieces %+v: %v", bad, err)
		}
	}
}

// A core that ends within its headers is told from one that is damaged.
func TestELFCutShort(t *testing.T) {
	for _, n := range []int64{5, 40, 100} {
		f := elfCore(t, nil, map[uint64]string{0: "a", 1 << 32: "b"})
		if err := os.Truncate(f.Name(), n); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSource(f, ""); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("of %d bytes: %v", n, err)
		}
	}
}

func FuzzELF(f *testing.F) {
	whole, err := os.ReadFile(elfCore(f, nil, map[uint64]string{0: "a", 1 << 32: "b"}).Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "core")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		src, err := OpenSource(file, "")
		if err != nil {
			return
		}
		data, err := src.extents()
		if err != nil {
			return
		}
		for _, x := range data {
			if x.off < 0 || x.end > src.Size() || x.off >= x.end {
				t.Errorf("extent %+v of %d bytes", x, src.Size())
			}
		}
		if m, err := src.mapAll(data); err == nil {
			_, _, err := m.guest(src.Blocks)
			t.Log(err)
			if err := m.close(); err != nil {
				t.Error(err)
			}
		}
	})
}
