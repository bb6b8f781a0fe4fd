package lsa

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"lsad/lsa/format"
)

// TestRescueVoid: a void record that no sync covers is saved like any other when
// its device fails, also where no segment is prepared for it, and no gap is left.
func TestRescueVoid(t *testing.T) {
	r := newRig(t, 2, 32)
	h := r.volume("v", 1<<20)
	mustWrite(t, h, 0, make([]byte, 4096))
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the append failed")
	b := newBatch(originUser)
	b.addRange(format.EntryTrim, h.head(), 0, 1)
	if err := r.a.reserve(b); err != nil {
		t.Fatal(err)
	}
	from := b.records[0].dev
	b.err = r.a.void(b, &b.records[0], cause)
	b.written.Store(true)
	r.a.drain()
	<-b.wake
	if !errors.Is(b.err, cause) {
		t.Fatal(b.err)
	}
	bad := r.a.devs()[1-from.slot]
	if bad.appended.Load() == bad.synced.Load() {
		t.Fatal("the void record is not on the other device")
	}
	r.a.append.mu.Lock()
	for c := range from.streams {
		if s := &from.streams[c]; s.open {
			r.a.seal(from, s)
		}
	}
	from.ready, from.prepared = append(from.ready, from.prepared...), nil
	r.a.append.mu.Unlock()
	r.a.takeOutOfService(bad, errDead)
	r.a.rescueAll()
	if err := r.a.failed(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, h, 4096, make([]byte, 4096))
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	// The failed device has nothing of it: another one must.
	r.spoil(int(bad.slot))
	r.crash(rand.New(rand.NewPCG(1, 1)))
}

// TestRescueBesideJanitor: the records of a failed device are saved though giving
// back the space of deleted layers takes long.
func TestRescueBesideJanitor(t *testing.T) {
	r := newRig(t, 2, 32)
	h := r.volume("v", 1<<20)
	r.a.janitor.mu.Lock() // it takes long
	defer r.a.janitor.mu.Unlock()
	kick(r.a.work.tidy)
	time.Sleep(20 * time.Millisecond) // that has begun by now, or this tests nothing
	bad := r.a.devs()[1]
	for bad.appended.Load() == bad.synced.Load() {
		r.a.append.mu.Lock()
		r.a.append.stretch = 0
		r.a.append.mu.Unlock()
		mustWrite(t, h, 0, make([]byte, 4096))
	}
	r.a.takeOutOfService(bad, errDead)
	for begin := time.Now(); bad.appended.Load() != bad.synced.Load(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("its records are not saved")
		}
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
}
