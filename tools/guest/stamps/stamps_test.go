package main

import (
	"path/filepath"
	"testing"
)

// TestCheck holds which contents of a block are accepted.
func TestCheck(t *testing.T) {
	const block = 5
	for name, tc := range map[string]struct {
		change func(p []byte)
		ok     bool
	}{
		"acknowledged":   {func(p []byte) { stamp(p, block, 3) }, true},
		"tried":          {func(p []byte) { stamp(p, block, 4) }, true},
		"an old version": {func(p []byte) { stamp(p, block, 2) }, false},
		"from nowhere":   {func(p []byte) { stamp(p, block, 5) }, false},
		"another block":  {func(p []byte) { stamp(p, block+1, 3) }, false},
		"zeros":          {func(p []byte) { clear(p) }, false},
		"torn": {func(p []byte) {
			old := make([]byte, blockSize)
			stamp(p, block, 4)
			stamp(old, block, 3)
			copy(p[512:], old[512:])
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := new(state)
			s.Acked[block], s.Tried[block] = 3, 4
			p := make([]byte, blockSize)
			tc.change(p)
			if err := s.check(p, block); (err == nil) != tc.ok {
				t.Errorf("check: %v", err)
			}
		})
	}
	if err := new(state).check(make([]byte, blockSize), block); err != nil {
		t.Errorf("a block never written: %v", err)
	}
}

// TestState holds that a state is read as it was saved.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Acked[7], s.Tried[span-1] = 3, 9
	if err := s.save(path); err != nil {
		t.Fatal(err)
	}
	got, err := load(path)
	if err != nil || *got != *s {
		t.Fatalf("read back something else, error %v", err)
	}
}
