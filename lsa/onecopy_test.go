package lsa

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestOneCopyIsTold: where blocks that are to have two copies have one, and are not about to get another, the status says
// so: with fewer than two devices that take writes, and where none has room for what is missing.
func TestOneCopyIsTold(t *testing.T) {
	r, _, _, _ := newPair(t, 2)
	if why := r.a.Status().OneCopy; why != "" {
		t.Errorf("with all as it should be: %q", why)
	}
	r.a.takeOutOfService(r.a.devs()[1], errDead)
	if why := r.a.Status().OneCopy; !strings.Contains(why, "add a device") {
		t.Errorf("with one device: %q", why)
	}

	r = newRig(t, 3, 32)
	r.copies = 2
	h := r.volume("v", 32<<20)
	data := make([]byte, 1<<20)
	fill(data, rand.New(rand.NewPCG(1, 2)))
	for off := int64(0); write(h, off%h.Size(), data) == nil; off += int64(len(data)) { // until it is full
		if off > h.Size() {
			t.Fatal("an array of 24 MiB took 32")
		}
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	r.a.takeOutOfService(r.a.devs()[2], errDead)
	for begin := time.Now(); !strings.Contains(r.a.Status().OneCopy, "room"); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("a rebuild without room: %q", r.a.Status().OneCopy)
		}
	}
}
