package lsa

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// TestSeal: sealing, renaming and describing a volume is one change that a
// crash does not part, nothing changes it afterwards, and clones of it are
// writable.
func TestSeal(t *testing.T) {
	r := newRig(t, 2, 48)
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(1, 1))
	if err := r.a.CreateVolumeWith(ctx, "staging", 1<<20, VolumeOptions{Attributes: json.RawMessage(`{"kind":"staging"}`)}); err != nil {
		t.Fatal(err)
	}
	h := r.handle("staging")
	data := bytes.Repeat([]byte("sealed. "), 8192)
	mustWrite(t, h, 4096, data)
	seal := VolumeUpdate{Name: "image", Attributes: json.RawMessage(`{"kind":"image"}`), Seal: true}
	if err := r.a.UpdateVolume(ctx, "staging", seal); !errors.Is(err, ErrInUse) {
		t.Fatalf("seal while it is open for writing: %v", err)
	}
	h.Close()
	if err := r.a.UpdateVolume(ctx, "staging", seal); err != nil {
		t.Fatal(err)
	}
	for i, restart := range []func(){func() {}, func() { r.crash(rng) }, r.reopen, func() { r.kill(rng) }} {
		restart()
		checkSealed(t, r.a, data)
		fork := fmt.Sprint("fork", i)
		if err := r.a.Clone(ctx, "image", "", fork); err != nil {
			t.Fatal(err)
		}
		h := r.handle(fork)
		checkRead(t, h, 4096, data)
		mustWrite(t, h, 0, []byte("its own"))
		h.Close()
		if v, _ := r.a.Volume(fork); v.Sealed || string(v.Attributes) != `{"kind":"image"}` || v.Origin != "image" {
			t.Fatalf("the fork is %+v", v)
		}
	}
	if err := r.a.DeleteVolume(ctx, "image"); err != nil {
		t.Fatal(err)
	}
	r.crash(rng)
	checkRead(t, r.handle("fork2"), 4096, data)
}

func checkSealed(t *testing.T, a *Array, data []byte) {
	t.Helper()
	ctx := context.Background()
	v, err := a.Volume("image")
	if err != nil || !v.Sealed || string(v.Attributes) != `{"kind":"image"}` {
		t.Fatalf("the image is %+v, %v", v, err)
	}
	h, err := a.OpenVolume("image", OpenOptions{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	checkRead(t, h, 4096, data)
	if err := h.Trim(0, 4096); !errors.Is(err, ErrReadOnly) {
		t.Errorf("trim: %v", err)
	}
	for what, err := range map[string]error{
		"snapshot": a.Snapshot(ctx, "image", "s"), "resize": a.ResizeVolume(ctx, "image", 2<<20, false), "revert": a.Revert(ctx, "image", "s"),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s of a sealed volume: %v", what, err)
		}
	}
}

// TestAttributesBounds: what would not fit the log or could not be read back
// is refused before anything is written.
func TestAttributesBounds(t *testing.T) {
	r := newRig(t, 1, 32)
	ctx := context.Background()
	r.volume("v", 1<<20)
	for _, bad := range []string{"{", `"` + strings.Repeat("x", MaxAttributes) + `"`, `"` + strings.Repeat("<", MaxAttributes-2) + `"`} {
		if err := r.a.UpdateVolume(ctx, "v", VolumeUpdate{Attributes: json.RawMessage(bad)}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.10s...: %v", bad, err)
		}
		if err := r.a.CreateVolumeWith(ctx, "w", 1<<20, VolumeOptions{Attributes: json.RawMessage(bad)}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.10s...: %v", bad, err)
		}
	}
	if err := r.a.Clone(ctx, "v", "", "w"); !errors.Is(err, ErrInvalid) {
		t.Errorf("clone of a volume that is not sealed: %v", err)
	}
	most := json.RawMessage(`"` + strings.Repeat("x", MaxAttributes-2) + `"`)
	if err := r.a.UpdateVolume(ctx, "v", VolumeUpdate{Attributes: most}); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if v, _ := r.a.Volume("v"); !bytes.Equal(v.Attributes, most) {
		t.Fatalf("attributes of %d bytes came back", len(v.Attributes))
	}
}

// TestAttributesInSmallSegments: a change that no segment has room for is refused.
// JSON takes six bytes in the log for some characters.
func TestAttributesInSmallSegments(t *testing.T) {
	ctx := context.Background()
	dev, fs := blockdev.NewMem("mem", format.SegmentsOffset+64*format.MinSegmentSize), vfs.NewMem()
	devices := []blockdev.Device{dev}
	if err := Create(ctx, CreateOptions{Devices: devices, FS: fs, Meta: "meta", SegmentSize: format.MinSegmentSize}); err != nil {
		t.Fatal(err)
	}
	a, err := Open(ctx, Options{Devices: devices, FS: fs, Meta: "meta"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.CreateVolume(ctx, "v", 1<<20); err != nil {
		t.Fatal(err)
	}
	refused := false
	for _, n := range []int{9000, 10200, 10880, 10890, 10900, 10910} {
		attributes := json.RawMessage(`"` + strings.Repeat("<", n) + `"`)
		err := a.UpdateVolume(ctx, "v", VolumeUpdate{Attributes: attributes})
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%d: %v", n, err)
		}
		refused = refused || err != nil
		if err := a.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if !refused {
		t.Error("nothing was refused")
	}
}

func mustWrite(t testing.TB, h *Handle, off int64, p []byte) {
	t.Helper()
	if err := write(h, off, p); err != nil {
		t.Fatal(err)
	}
}

func checkRead(t *testing.T, h *Handle, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := h.ReadAt(got, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s at %d reads %.20q..., want %.20q...", h.name, off, got, want)
	}
}
