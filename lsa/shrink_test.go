package lsa

import "testing"

// Who reads a snapshot does not mind that its volume shrinks.
func TestShrinkBesideReaderOfSnapshot(t *testing.T) {
	r := newRig(t, 1, 24)
	h := r.volume("v", 8<<20)
	if err := write(h, 4<<20, []byte("it is kept here")); err != nil {
		t.Fatal(err)
	}
	if err := r.a.Snapshot(t.Context(), "v", "s"); err != nil {
		t.Fatal(err)
	}
	s := r.handle("v@s")
	if err := r.a.ResizeVolume(t.Context(), "v", 1<<20, true); err == nil {
		t.Error("shrank under a client")
	}
	h.Close()
	if err := r.a.ResizeVolume(t.Context(), "v", 1<<20, true); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 15)
	if err := s.ReadAt(p, 4<<20); err != nil || string(p) != "it is kept here" {
		t.Errorf("%q, %v", p, err)
	}
}
