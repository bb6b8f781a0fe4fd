package direct

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	segments     = 8
	segBlocks    = 16
	firstSegment = 1 << 20
)

// disk is an array of one device, which holds block b of the image at place[b].
type disk struct {
	t       testing.TB
	dir     string
	uses    *Uses
	file    *os.File
	place   []place
	content [][]byte
	asked   atomic.Int64
	err     atomic.Pointer[error]
	change  func(a *Answer) // an answer before it is sent
}

type place struct{ segment, block int }

func (p place) offset() int64 {
	return firstSegment + int64(p.segment*segBlocks+p.block)*BlockSize
}

func noise(r *rand.Rand) []byte {
	p := make([]byte, BlockSize)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// newDisk puts the image into the first segments.
func newDisk(t testing.TB, blocks int) *disk {
	t.Helper()
	d := &disk{t: t, dir: t.TempDir(), change: func(*Answer) {}}
	var err error
	if d.file, err = os.Create(filepath.Join(d.dir, "dev")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.file.Close() })
	d.serve()
	r := rand.New(rand.NewPCG(1, 2))
	for b := range blocks {
		d.content = append(d.content, noise(r))
		d.place = append(d.place, place{b / segBlocks, b % segBlocks})
		d.write(d.place[b], d.content[b])
	}
	return d
}

func (d *disk) serve() {
	d.t.Helper()
	var err error
	if d.uses, err = CreateUses(filepath.Join(d.dir, "uses")); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { d.uses.Close() })
}

func (d *disk) write(p place, block []byte) {
	d.t.Helper()
	if _, err := d.file.WriteAt(block, p.offset()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) locate(_ context.Context, off int64, blocks int) (*Answer, error) {
	d.asked.Add(1)
	if err := d.err.Load(); err != nil {
		return nil, *err
	}
	base, _ := d.uses.Base()
	a := &Answer{Uses: d.uses.Path(), Base: base, Devices: []string{"", d.file.Name()}}
	for b := int(off / BlockSize); b < int(off/BlockSize)+blocks; b++ {
		row := Zeros()
		if d.content[b] != nil {
			row = d.uses.Row(1, uint32(d.place[b].segment), d.place[b].offset(), crc32.Checksum(d.content[b], castagnoli))
		}
		a.Rows = EncodeRows(a.Rows, []Row{row})
	}
	d.change(a)
	return a, nil
}

func (d *disk) reader() *Reader {
	r := NewReader(int64(len(d.content))*BlockSize, d.locate, slog.New(slog.DiscardHandler))
	d.t.Cleanup(r.Close)
	return r
}

// check reads blocks and says whether that was possible. What comes must be right.
func (d *disk) check(r *Reader, first, n int) bool {
	d.t.Helper()
	p := bytes.Repeat([]byte{0xee}, n*BlockSize)
	if !r.ReadAt(context.Background(), p, int64(first)*BlockSize) {
		return false
	}
	for b := range n {
		want := d.content[first+b]
		if want == nil {
			want = make([]byte, BlockSize)
		}
		if !bytes.Equal(p[b*BlockSize:][:BlockSize], want) {
			d.t.Fatalf("block %d: wrong content", first+b)
		}
	}
	return true
}

func TestRead(t *testing.T) {
	d := newDisk(t, 40)
	d.content[7], d.content[8] = nil, nil
	r := d.reader()
	for _, at := range [][2]int{{0, 40}, {3, 1}, {6, 4}, {15, 2}, {39, 1}} {
		if !d.check(r, at[0], at[1]) {
			t.Errorf("blocks %v were not read", at)
		}
	}
	if n := r.Bytes(); n != (40+1+4+2+1)*BlockSize {
		t.Errorf("%d bytes are counted", n)
	}
	p := make([]byte, 2*BlockSize)
	for _, off := range []int64{-BlockSize, 1, 39 * BlockSize, 1 << 40} {
		if r.ReadAt(t.Context(), p, off) || r.TryReadAt(p, off) {
			t.Errorf("two blocks at %d were read", off)
		}
	}
	if r.ReadAt(t.Context(), p[:100], 0) {
		t.Error("part of a block was read")
	}
	if d.asked.Load() != 1 {
		t.Errorf("it asked %d times", d.asked.Load())
	}
}

// A read that does not wait has the rows fetched, and succeeds when they are there.
func TestTry(t *testing.T) {
	d := newDisk(t, 40)
	r := d.reader()
	p := make([]byte, BlockSize)
	if r.TryReadAt(p, 0) {
		t.Fatal("it knew where the block lies before it asked")
	}
	if _, err := readNow(int(d.file.Fd()), p, d.place[5].offset()); err == unix.EOPNOTSUPP {
		t.Skip("this file system cannot say that a read takes no wait")
	}
	for end := time.Now().Add(30 * time.Second); !r.TryReadAt(p, 5*BlockSize); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not read although it takes no wait")
		}
	}
	if !bytes.Equal(p, d.content[5]) {
		t.Error("wrong content")
	}
}

// A block that moved is not read where it was, whatever lies there: not even something with the same checksum.
func TestMoved(t *testing.T) {
	d := newDisk(t, 40)
	r := d.reader()
	if !d.check(r, 0, 40) {
		t.Fatal("not read")
	}
	forged := forge(noise(rand.New(rand.NewPCG(3, 4))), crc32.Checksum(d.content[3], castagnoli))
	old := d.place[3]
	d.place[3] = place{6, 0}
	d.write(d.place[3], d.content[3])
	if !d.check(r, 3, 1) {
		t.Error("not read although nothing was overwritten yet")
	}
	if err := d.uses.Emptied(1, uint32(old.segment)); err != nil {
		t.Fatal(err)
	}
	d.write(old, forged)
	if d.check(r, 3, 1) {
		t.Error("read without asking anew")
	}
	if !d.check(r, 3, 1) || d.asked.Load() != 2 {
		t.Errorf("not read after asking anew, %d questions", d.asked.Load())
	}
	if !d.check(r, 17, 20) {
		t.Error("other segments are not read")
	}
}

// While the server is away, a block that has moved cannot be read, and all the others can.
func TestMovedServerAway(t *testing.T) {
	d := newDisk(t, 40)
	r := d.reader()
	if !d.check(r, 0, 40) {
		t.Fatal("not read")
	}
	d.place[3] = place{6, 0}
	d.write(d.place[3], d.content[3])
	if err := d.uses.Emptied(1, 0); err != nil {
		t.Fatal(err)
	}
	away := error(unix.ECONNREFUSED)
	d.err.Store(&away)
	for range 2 {
		if d.check(r, 3, 1) {
			t.Error("what moved was read")
		}
		if !d.check(r, 17, 20) {
			t.Error("what did not move was not read")
		}
	}
	d.err.Store(nil)
	for end := time.Now().Add(time.Minute); !d.check(r, 3, 1); time.Sleep(leastPause / 4) {
		if time.Now().After(end) {
			t.Fatal("not read although the server is back")
		}
	}
}

// forge gives a block a checksum by changing its last four bytes.
func forge(p []byte, want uint32) []byte {
	// The register before the last four bytes, run forward, must meet the wanted one, run backward through them.
	crc := ^want
	for range 4 {
		i := 0
		for castagnoli[i]>>24 != crc>>24 {
			i++
		}
		crc = (crc^castagnoli[i])<<8 | uint32(i)
	}
	crc ^= ^crc32.Checksum(p[:BlockSize-4], castagnoli)
	for i := range 4 {
		p[BlockSize-4+i] = byte(crc >> (8 * i))
	}
	if crc32.Checksum(p, castagnoli) != want {
		panic("the forgery does not have the checksum")
	}
	return p
}

func TestDamage(t *testing.T) {
	d := newDisk(t, 40)
	r := d.reader()
	d.write(d.place[9], make([]byte, BlockSize))
	if d.check(r, 9, 1) || d.check(r, 0, 40) {
		t.Error("a damaged block was read")
	}
	if !d.check(r, 10, 30) {
		t.Error("its neighbours were not")
	}
}

// Another server, or another set of devices: nothing that was told before counts.
func TestNewServer(t *testing.T) {
	d := newDisk(t, 40)
	r := d.reader()
	if !d.check(r, 0, 40) {
		t.Fatal("not read")
	}
	for _, begin := range []func(){d.serve, func() {
		if err := d.uses.Renew(); err != nil {
			t.Fatal(err)
		}
	}} {
		asked := d.asked.Load()
		begin()
		if d.check(r, 0, 40) {
			t.Error("read with what was told before")
		}
		if !d.check(r, 0, 40) || d.asked.Load() != asked+1 {
			t.Errorf("not read after %d questions", d.asked.Load()-asked)
		}
	}
}

// A file that cannot be written leaves readers with nothing; if not even that is possible the array is told.
func TestUsesFail(t *testing.T) {
	d := newDisk(t, 20)
	fd, err := unix.MemfdCreate("uses", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	d.uses.Close()
	d.uses.file = os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd))
	d.uses.path = d.uses.file.Name()
	if err := d.uses.Renew(); err != nil {
		t.Fatal(err)
	}
	r := d.reader()
	if !d.check(r, 0, 20) {
		t.Fatal("not read")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		t.Fatal(err)
	}
	if err := d.uses.Emptied(1, 0); err != nil {
		t.Error(err)
	}
	first, second := d.check(r, 0, 1), d.check(r, 0, 1)
	if _, ok := d.uses.Base(); ok || first || second {
		t.Error("read although nobody could be told of changes")
	}
	d.serve()
	d.uses.file.Close()
	if err := d.uses.Emptied(1, 0); err == nil {
		t.Error("a change that nobody can be told of was allowed")
	}
}

// What the server says may be anything.
func TestHostile(t *testing.T) {
	one := func(r Row) []byte { return bytes.Repeat(EncodeRows(nil, []Row{r}), 20) }
	tests := map[string]struct {
		change func(a *Answer)
		again  bool // it asks again
	}{
		"no rows":             {func(a *Answer) { a.Rows = nil }, false},
		"too many":            {func(a *Answer) { a.Rows = append(a.Rows, a.Rows...) }, false},
		"no such device":      {func(a *Answer) { a.Devices[1] = filepath.Join(t.TempDir(), "none") }, false},
		"no numbers":          {func(a *Answer) { a.Uses = filepath.Join(t.TempDir(), "none") }, false},
		"too many devices":    {func(a *Answer) { a.Devices = make([]string, 300) }, false},
		"slot beyond devices": {func(a *Answer) { a.Rows = one(makeRow(9, 0, 1<<20, 0, 0)) }, false},
		"beyond the device":   {func(a *Answer) { a.Rows = one(makeRow(1, 0, 1<<40, 0, 0)) }, true},
		"nothing told":        {func(a *Answer) { a.Rows = one(Row{}) }, false},
		"another base":        {func(a *Answer) { a.Base++ }, true},
	}
	for name, test := range tests {
		d := newDisk(t, 20)
		d.change = test.change
		r := d.reader()
		if d.check(r, 0, 20) || d.check(r, 5, 1) {
			t.Errorf("%s: read", name)
		}
		if again := d.asked.Load() > 1; again != test.again {
			t.Errorf("%s: asked %d times", name, d.asked.Load())
		}
	}
}

// A server that does not answer is not asked at every read, and one that never will, never again.
func TestNoAnswer(t *testing.T) {
	d := newDisk(t, 20)
	r := d.reader()
	down := errors.New("down")
	d.err.Store(&down)
	for range 1000 {
		if d.check(r, 0, 1) {
			t.Fatal("read")
		}
	}
	if n := d.asked.Load(); n < 1 || n > 500 {
		t.Errorf("%d questions", n)
	}
	d.err.Store(nil)
	for end := time.Now().Add(30 * time.Second); !d.check(r, 0, 20); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never read")
		}
	}
	never := fmt.Errorf("%w: go away", ErrNever)
	d.err.Store(&never)
	r = d.reader()
	asked := d.asked.Load()
	first, second := d.check(r, 0, 1), d.check(r, 0, 1)
	if first || second || r.TryReadAt(make([]byte, BlockSize), 0) || d.asked.Load() != asked+1 {
		t.Errorf("%d questions", d.asked.Load()-asked)
	}
}

func TestCloseEnds(t *testing.T) {
	d := newDisk(t, 20)
	r := d.reader()
	if !d.check(r, 0, 20) {
		t.Fatal("not read")
	}
	r.Close()
	if d.check(r, 0, 1) || r.TryReadAt(make([]byte, BlockSize), 0) {
		t.Error("read after Close")
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte{})
	f.Add(EncodeRows(nil, []Row{Zeros(), {}, makeRow(3, 70, 1<<20+4096, 1, 2)}))
	f.Fuzz(func(t *testing.T, p []byte) {
		rows := decodeRows(p)
		if !bytes.Equal(EncodeRows(nil, rows), p[:len(p)/rowSize*rowSize]) {
			t.Error("rows are not what they were read from")
		}
		v := &view{uses: -1, fds: []int{-1}}
		for _, r := range rows {
			if off := r.offset(); off < 0 || off >= 1<<(sectorBits+9) {
				t.Errorf("offset %d", off)
			}
			if err := v.read(make([]byte, BlockSize), []Row{r}, true); (err == nil) != (r == Zeros()) {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
}

func BenchmarkTryReadAt(b *testing.B) {
	d := newDisk(b, 128)
	r := d.reader()
	d.check(r, 0, 1)
	for _, blocks := range []int{1, 4, 128} {
		b.Run(fmt.Sprintf("%dKiB", 4*blocks), func(b *testing.B) {
			p := make([]byte, blocks*BlockSize)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if !r.TryReadAt(p, 0) {
					b.Skip("this file system never says that a read takes no wait")
				}
			}
		})
	}
}
