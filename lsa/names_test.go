package lsa

import (
	"errors"
	"testing"
)

// A script whose variable is empty says "v@". That is not the volume: it would be read while it changes, written
// though a snapshot was meant, or deleted.
func TestNoNameOfSnapshot(t *testing.T) {
	r := newRig(t, 1, 24)
	r.volume("v", 1<<20).Close()
	for _, name := range []string{"v@", "@", "v@@", "v@s"} {
		if h, err := r.a.OpenVolume(name, OpenOptions{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("open %q: %v, %v", name, h, err)
		}
		if err := r.a.DeleteVolume(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	if got := r.a.Volumes(); len(got) != 1 {
		t.Errorf("volumes: %v", got)
	}
}
