package mirrorfs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestStateBytes(t *testing.T) {
	s := state{id: [16]byte{0xaa, 15: 0xbb}, generation: 0x0102, sequence: 3, alone: true, clean: true}
	want := "6c7361646d697272" + // magic
		"01000000" + "05000000" + // version, flags: alone, clean
		"aa0000000000000000000000000000bb" + // id
		"0201000000000000" + "0300000000000000" // generation, sequence
	b := s.encode()
	if got := hex.EncodeToString(b[:stateSize-4]); got != want {
		t.Errorf("encoded\n%s\nwant\n%s", got, want)
	}
	back, err := decodeState(b)
	if err != nil || *back != s {
		t.Errorf("decoded %+v, %v", back, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 4
		if _, err := decodeState(bad); !errors.Is(err, errBadState) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

// TestStateTorn holds that a record that was cut short leaves the one before.
func TestStateTorn(t *testing.T) {
	fs := vfs.NewMem()
	s := &side{Side: Side{fs, "/"}}
	for g := range uint64(5) {
		if err := s.writeState(state{generation: g}); err != nil {
			t.Fatal(err)
		}
		f, err := fs.Open("/" + stateFile)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readState(f)
		if err != nil || got.generation != g {
			t.Fatalf("read %+v, %v; want generation %d", got, err, g)
		}
		whole := make([]byte, stateSlot+stateSize)
		f.ReadAt(whole, 0)
		f.Close()
		whole[(g+1)%2*stateSlot+20] ^= 1
		if torn, err := readState(bytes.NewReader(whole)); g > 0 && (err != nil || torn.generation != g-1) {
			t.Fatalf("torn: read %+v, %v; want generation %d", torn, err, g-1)
		}
	}
}

func FuzzState(f *testing.F) {
	s := state{generation: 7, sequence: 1}
	f.Add(s.encode())
	f.Add(append(s.encode(), make([]byte, stateSlot)...))
	f.Add([]byte(stateMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readState(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, errBadState) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeState(got.encode())
		if err != nil || *again != *got {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}
