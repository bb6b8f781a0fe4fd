package lsa

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// TestNotBlank: what somebody may miss is not written over, by a new array or
// by one that gets another device.
func TestNotBlank(t *testing.T) {
	r := newRig(t, 1, 32)
	unknown := signature{what: "data of an unknown kind", off: 300 << 10, magic: "letters of my grandmother"}
	for _, sig := range append(signatures, unknown) {
		m := blockdev.NewMem("disk", format.SegmentsOffset+32*rigSegment)
		sector := make([]byte, 2*format.SectorSize)
		at := int64(sig.off) &^ (format.SectorSize - 1)
		copy(sector[int64(sig.off)-at:], sig.magic)
		if err := m.WriteVec([][]byte{sector}, at); err != nil {
			t.Fatal(err)
		}
		err := Create(context.Background(), CreateOptions{Devices: []blockdev.Device{m}, FS: vfs.NewMem(), Meta: "meta", SegmentSize: rigSegment})
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), sig.what) {
			t.Errorf("create over %s: %v", sig.what, err)
		}
		if _, err := r.a.AddDevice(context.Background(), m, nil); !errors.Is(err, ErrExists) {
			t.Errorf("add a device with %s: %v", sig.what, err)
		}
		now := make([]byte, len(sector))
		if err := m.ReadAt(now, at); err != nil || !bytes.Equal(now, sector) {
			t.Errorf("%s was written over", sig.what)
		}
	}
}
