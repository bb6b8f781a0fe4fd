package lsa

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"lsad/lsa/format"
)

// TestDamagedSegmentFreed: a segment with a live block that cannot be read stays
// until that block is overwritten; then it is used again.
func TestDamagedSegmentFreed(t *testing.T) {
	b := newBadRig(t, 1)
	var seg uint32
	b.sectors(func(s uint32, _, _, live int64) { seg, b.bad = s, map[int64]bool{live: true} })
	s := &b.a.devs()[0].segs[seg]
	if _, err := b.a.Collect(context.Background(), 0, seg, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.live.Load() != 1 || !s.damaged || s.state != segSealed {
		t.Fatalf("%d live blocks, damaged %v, %v", s.live.Load(), s.damaged, s.state)
	}
	if err := b.a.DeleteVolume(context.Background(), "v@s"); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, b.h, 0, b.data)
	if err := b.a.tidyLayers(); err != nil {
		t.Fatal(err)
	}
	if err := b.a.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.live.Load() != 0 || s.damaged || s.state == segSealed {
		t.Fatalf("%d live blocks, damaged %v, %v", s.live.Load(), s.damaged, s.state)
	}
	b.bad = map[int64]bool{}
	b.expect("overwritten", b.h, b.data)
}

// TestRemoveUnreadableSegment: a segment of which nothing can be read keeps its
// device in, and not the blocks of others; force gives it up.
func TestRemoveUnreadableSegment(t *testing.T) {
	b := newBadRig(t, 2)
	d := b.a.devs()[0]
	bad := map[int64]bool{}
	var lost int64
	b.sectors(func(seg uint32, _, _, _ int64) {
		if lost > 0 {
			return
		}
		for sector := range d.segSectors() {
			bad[d.offset(seg, sector)] = true
		}
		lost = int64(d.segs[seg].live.Load())
	})
	b.bad = bad
	if _, err := b.a.RemoveDevice(context.Background(), 0, RemoveOptions{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("removed with %d blocks that cannot be read: %v", lost, err)
	}
	if live := d.live.Load(); live != lost {
		t.Fatalf("%d blocks are left, %d cannot be read", live, lost)
	}
	if _, err := b.a.RemoveDevice(context.Background(), 0, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	readable := 0
	for off := int64(0); off < b.h.Size(); off += format.BlockSize {
		if b.h.ReadAt(make([]byte, format.BlockSize), off) == nil {
			readable++
		}
	}
	if least := len(b.data)/format.BlockSize - int(lost); readable < least {
		t.Fatalf("%d blocks can be read, want %d or more", readable, least)
	}
}

// TestDamageIsLoggedSeldom: a disk that dies has millions of blocks, and the log
// is for people.
func TestDamageIsLoggedSeldom(t *testing.T) {
	for _, tt := range []struct {
		spoil func(r *rig, slot int)
		line  string
	}{
		{(*rig).spoilData, "cannot be moved"},
		{(*rig).spoil, "record headers are damaged"},
	} {
		r := newRig(t, 2, 32)
		var out lines
		r.opts.Logger = slog.New(slog.NewTextHandler(&out, nil))
		r.reopen()
		h := r.volume("v", 4<<20)
		mustWrite(t, h, 0, bytes.Repeat([]byte{7}, 4<<20))
		tt.spoil(r, 0)
		begin := time.Now()
		r.collectDevice(0)
		most := int(time.Since(begin)/time.Second) + 1
		if n := strings.Count(out.text(), tt.line); n == 0 || n > most {
			t.Errorf("%d lines with %q in %v", n, tt.line, time.Since(begin))
		}
	}
}
