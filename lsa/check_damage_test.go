package lsa

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// sound is an array on two devices that was closed, with what it holds. Each
// test damages a copy of it.
type sound struct {
	*rig
	volumes map[string][]byte
}

func newSound(t *testing.T) *sound {
	t.Helper()
	s := &sound{rig: newRig(t, 2, 24), volumes: map[string][]byte{}}
	rng := rand.New(rand.NewPCG(5, 5))
	h := s.volume("v", 2<<20)
	data := make([]byte, 2<<20)
	put := func(off, n int) {
		fill(data[off:off+n], rng)
		if err := write(h, int64(off), data[off:off+n]); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1<<20)
	if err := s.a.Snapshot(context.Background(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	s.volumes["v@s"] = bytes.Clone(data)
	for i := range 40 {
		put(i*8192, 4096)
	}
	if err := h.Trim(512<<10, 64<<10); err != nil {
		t.Fatal(err)
	}
	clear(data[512<<10 : 576<<10])
	s.volumes["v"] = data
	if err := s.a.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// copy returns another array with the same bytes.
func (s *sound) copy(t *testing.T) *sound {
	c := &sound{rig: s.killed(rand.New(rand.NewPCG(1, 1))), volumes: s.volumes}
	c.t = t
	return c
}

// finds fails the test unless Check reports a problem of that kind and with
// those words.
func (s *sound) finds(kind string, words ...string) {
	s.t.Helper()
	report := s.check()
	for _, p := range report.Problems {
		all := p.Kind == kind
		for _, w := range words {
			all = all && strings.Contains(p.String(), w)
		}
		if all {
			return
		}
	}
	s.t.Fatalf("no problem of kind %s with %q in %v", kind, words, report.Problems)
}

// reads opens the array and reads all of it: what it returns must be right, or
// an error. It returns how many blocks could not be read, -1 if it did not open.
func (s *sound) reads() (bad int, err error) {
	s.t.Helper()
	if err := s.tryOpen(); err != nil {
		if len(err.Error()) < 20 {
			s.t.Fatalf("%v: that says too little", err)
		}
		return -1, err
	}
	defer s.a.Close()
	for name, want := range s.volumes {
		h, openErr := s.a.OpenVolume(name, OpenOptions{})
		if openErr != nil {
			return bad, openErr
		}
		got := make([]byte, 4096)
		for off := 0; off < len(want); off += len(got) {
			if readErr := h.ReadAt(got, int64(off)); readErr != nil {
				bad, err = bad+1, readErr
			} else if !bytes.Equal(got, want[off:off+len(got)]) {
				s.t.Fatalf("%s has wrong bytes at %d", name, off)
			}
		}
	}
	return bad, err
}

// liveRecord finds the first record that has blocks the map refers to, and the
// place of the first of them.
func (s *sound) liveRecord() (m *blockdev.Mem, header int64, data int64) {
	s.t.Helper()
	o := s.opts
	o.Devices, o.FS, o.Meta = s.devices(), s.fs, "meta"
	a, err := inspect(context.Background(), o)
	defer a.dismiss()
	if err != nil {
		s.t.Fatal(err)
	}
	for slot, d := range a.devs() {
		for seg := range d.segs {
			live, err := a.liveIn(context.Background(), d, uint32(seg))
			if err != nil {
				s.t.Fatal(err)
			}
			if len(live) == 0 {
				continue
			}
			p, first := live[0].place, uint32(0)
			_, err = a.eachHeader(d, uint32(seg), p.Sector(), d.segs[seg].generation, func(h *format.RecordHeader, _ []byte) error {
				first = h.Sector
				return nil
			})
			if err != nil {
				s.t.Fatal(err)
			}
			return s.mems[slot], d.offset(uint32(seg), first), d.offset(uint32(seg), p.Sector())
		}
	}
	s.t.Fatal("no live record")
	return nil, 0, 0
}

// times is how often to try: ten times as often in a full test.
func times(n int) int {
	if os.Getenv("LSAD_TEST") == "full" {
		return 10 * n
	}
	return n
}

func TestDamagedSuperblockCopy(t *testing.T) {
	oneByOne(t)
	s := newSound(t)
	rng := rand.New(rand.NewPCG(2, 2))
	for copy, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		for dev := range 2 {
			for range times(6) {
				d := s.copy(t)
				d.mems[dev].Corrupt(off+rng.Int64N(format.SuperblockSize), []byte{1 << rng.IntN(8)})
				d.finds("superblock", d.mems[dev].Name(), fmt.Sprint("copy ", copy+1))
				if bad, err := d.reads(); bad != 0 {
					t.Fatalf("%d blocks unreadable: %v", bad, err)
				}
				d.clean("after an opening, which writes both copies")
			}
		}
	}
}

func TestDamagedSuperblocks(t *testing.T) {
	s := newSound(t)
	for _, at := range []int64{0, 10, 20, 70, 300, 4095} {
		d := s.copy(t)
		d.mems[1].Corrupt(format.SuperblockOffsetA+at, []byte{4})
		d.mems[1].Corrupt(format.SuperblockOffsetB+100, []byte{4})
		if bad, err := d.reads(); bad != -1 || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), d.mems[1].Name()) {
			t.Fatalf("opened with both superblocks of a device damaged: %v", err)
		}
		d.finds("superblock", d.mems[1].Name(), "copy 1")
		d.finds("superblock", d.mems[1].Name(), "copy 2")
		err := Create(context.Background(), CreateOptions{Devices: []blockdev.Device{d.mems[1]}, FS: vfs.NewMem(), Meta: "m", SegmentSize: rigSegment})
		if err == nil || errors.Is(err, ErrNotArray) {
			t.Fatalf("a damaged device was taken for a blank one: %v", err)
		}
	}
}

// rewriteSuperblocks changes both copies on every device.
func (s *sound) rewriteSuperblocks(change func(p []byte)) {
	for _, m := range s.mems {
		for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
			p := make([]byte, format.SuperblockSize)
			if err := m.ReadAt(p, off); err != nil {
				s.t.Fatal(err)
			}
			before := bytes.Clone(p)
			change(p)
			sum := format.Checksum(p[:format.SuperblockSize-4])
			p[4092], p[4093], p[4094], p[4095] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
			for i := range p {
				p[i] ^= before[i]
			}
			m.Corrupt(off, p)
		}
	}
}

func TestUnknownFormats(t *testing.T) {
	s := newSound(t)
	tests := []struct {
		name, want string
		change     func(p []byte)
	}{
		{"incompatible feature", "newer lsad: superblock needs features 0x80", func(p []byte) { p[24] |= 0x80 }},
		{"newer version", "newer lsad: superblock of format version 2", func(p []byte) { p[8] = 2 }},
		{"unknown device state", "unknown state 7", func(p []byte) { p[256+20] = 7 }},
		{"impossible segments", "segments of 12345 bytes", func(p []byte) { p[72], p[73], p[74], p[75] = 0x39, 0x30, 0, 0 }},
		{"other slot", "slot 9", func(p []byte) { p[76] = 9 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := s.copy(t)
			d.rewriteSuperblocks(tt.change)
			if bad, err := d.reads(); bad != -1 || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Open: %v", err)
			} else if isNewer := strings.HasPrefix(tt.want, "newer"); errors.Is(err, format.ErrNewer) != isNewer || errors.Is(err, ErrDamaged) == isNewer {
				t.Errorf("said to be damaged, or newer: %v", err)
			}
			d.finds("superblock", tt.want)
			if err := Create(context.Background(), CreateOptions{Devices: d.devices(), FS: vfs.NewMem(), Meta: "m", SegmentSize: rigSegment}); err == nil {
				t.Fatal("Create took the devices for blank ones")
			}
		})
	}
	t.Run("compatible feature", func(t *testing.T) {
		d := s.copy(t)
		d.rewriteSuperblocks(func(p []byte) { p[16] |= 0x80 })
		d.clean("with a feature that need not be known")
		if bad, err := d.reads(); bad != 0 {
			t.Fatalf("Open: %v", err)
		}
	})
}

func TestTruncatedDevice(t *testing.T) {
	s := newSound(t)
	for _, size := range []int64{0, 4096, format.SegmentsOffset - 1, format.SegmentsOffset, s.mems[0].Size() - rigSegment, s.mems[0].Size() - 1} {
		d := s.copy(t)
		d.mems[0] = cutShort(t, d.mems[0], size)
		bad, err := d.reads()
		if bad != -1 || !strings.Contains(err.Error(), d.mems[0].Name()) {
			t.Fatalf("%d bytes of a device: %v", size, err)
		}
		if size > format.SegmentsOffset {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d bytes of a device: %v", size, err)
			}
			d.finds("array", "cut short")
		}
	}
}

func cutShort(t *testing.T, m *blockdev.Mem, size int64) *blockdev.Mem {
	short := blockdev.NewMem(m.Name(), size)
	buf := make([]byte, size)
	if err := m.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if err := short.WriteVec([][]byte{buf}, 0); err != nil {
		t.Fatal(err)
	}
	return short
}

func TestDamagedRecord(t *testing.T) {
	oneByOne(t)
	s := newSound(t)
	rng := rand.New(rand.NewPCG(3, 3))
	m, header, data := s.liveRecord()
	find := func(d *sound) *blockdev.Mem {
		for i := range s.mems {
			if s.mems[i] == m {
				return d.mems[i]
			}
		}
		return nil
	}
	for range times(8) {
		d := s.copy(t)
		find(d).Corrupt(data+rng.Int64N(4096), []byte{1 << rng.IntN(8)})
		d.finds("data", "checksum")
		if bad, err := d.reads(); bad < 1 || bad > 2 || !errors.Is(err, ErrDamaged) {
			t.Fatalf("a block with a flipped bit: %d reads failed, %v", bad, err)
		}
	}
	for range times(8) {
		d := s.copy(t)
		find(d).Corrupt(header+rng.Int64N(128), []byte{1 << rng.IntN(8)})
		d.finds("record", "no intact record")
		if bad, err := d.reads(); bad != 0 {
			t.Fatalf("a header with a flipped bit: %d reads failed, %v", bad, err)
		}
	}
}

// TestDamagedLog: what a flush covered and cannot be read any more is reported;
// what none covered is the tail of the crash.
func TestDamagedLog(t *testing.T) {
	for _, flushed := range []bool{true, false} {
		r := newRig(t, 2, 24)
		s := &sound{rig: r, volumes: map[string][]byte{"v": make([]byte, 1<<20)}}
		h := r.volume("v", 1<<20)
		if err := r.a.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
		marker := bytes.Repeat([]byte("lsad"), 1024)
		if err := write(h, 0, marker); err != nil {
			t.Fatal(err)
		}
		if flushed {
			// A record says what was durable when it was written.
			if err := errors.Join(h.Flush(), write(h, 8192, marker)); err != nil {
				t.Fatal(err)
			}
		}
		d := s.copy(t)
		m, off := d.findBytes(marker)
		m.Corrupt(off-512+30, []byte{1})
		bad, err := d.reads()
		switch {
		case flushed:
			if bad != -1 || !errors.Is(err, ErrGap) {
				t.Fatalf("opened with a durable record gone: %d, %v", bad, err)
			}
			d.finds("log", "was durable")
		case bad != 0:
			t.Fatalf("the tail of the crash: %d, %v", bad, err)
		default:
			d.clean("the tail of the crash")
		}
	}
}

// TestCheckCannotBeMade: a wrong call is an error, not a report.
func TestCheckCannotBeMade(t *testing.T) {
	s := newSound(t)
	other := newSound(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tests := []struct {
		name    string
		ctx     context.Context
		devices []blockdev.Device
		meta    string
		want    error
	}{
		{"device missing", context.Background(), s.devices()[:1], "meta", ErrMissingDevice},
		{"foreign device", context.Background(), append(other.devices()[:1], s.devices()[1]), "meta", ErrForeignDevice},
		{"no array", context.Background(), []blockdev.Device{blockdev.NewMem("blank", 8<<20)}, "meta", ErrNotArray},
		{"no store", context.Background(), s.devices(), "elsewhere", os.ErrNotExist},
		{"cancelled", ctx, s.devices(), "meta", context.Canceled},
	}
	for _, tt := range tests {
		if _, err := Check(tt.ctx, Options{Devices: tt.devices, FS: s.fs, Meta: tt.meta}, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	report, err := Check(context.Background(), Options{Devices: s.devices()[:1], FS: s.fs, Meta: "meta", Degraded: true}, nil)
	if err != nil || len(report.Problems) > 0 || report.Blocks == 0 {
		t.Errorf("degraded: %+v, %v", report, err)
	}
}

// TestCheckChangesNothing: neither the devices nor the metadata store.
func TestCheckChangesNothing(t *testing.T) {
	r := newRig(t, 2, 24)
	h := r.volume("v", 1<<20)
	if err := write(h, 0, make([]byte, 256<<10)); err != nil {
		t.Fatal(err)
	}
	k := r.killed(rand.New(rand.NewPCG(1, 1)))
	for _, m := range k.mems {
		m.OnOp = func(op blockdev.Op) error {
			if op.Kind != blockdev.OpRead {
				t.Errorf("%v of a device", op.Kind)
			}
			return nil
		}
	}
	before := files(t, k.fs)
	var last, total int64
	o := k.opts
	o.Devices, o.FS, o.Meta = k.devices(), k.fs, "meta"
	report, err := Check(context.Background(), o, func(done, of int64) { last, total = done, of })
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if report.Blocks != 64 || last != 256<<10 || total != last {
		t.Fatalf("verified %d blocks, %d of %d bytes", report.Blocks, last, total)
	}
	after := files(t, k.fs)
	for name := range after {
		if !bytes.Equal(before[name], after[name]) {
			t.Errorf("%s was changed", name)
		}
	}
	if len(before) != len(after) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
}

func files(t *testing.T, fs *vfs.MemFS) map[string][]byte {
	names, err := fs.List("meta")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, n := range names {
		f, err := fs.Open(path.Join("meta", n))
		if err != nil {
			t.Fatal(err)
		}
		p, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[n] = p
	}
	return all
}
