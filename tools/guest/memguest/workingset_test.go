package memguest

import (
	"context"
	"testing"
	"time"
)

// TestWorkingSet holds that what a VM touches is recorded, and that a restore which sends it first is asked for far
// less. The first restore sends nothing but what is asked for, so that the guest asks for every page that it uses; in the
// second the working set is on its way before the guest gets there.
func TestWorkingSet(t *testing.T) {
	ctx := withPatience(t)
	o := Options{MemoryMiB: 256, UsedMiB: 60}
	vm, s := waitingFor(t, ctx, o)
	o.Incoming = true
	s.run(ctx, nil, "image", "fork", "one", "two")
	recording, interrupt := context.WithCancel(ctx)
	wait := s.start(recording, "image", "restore", "two", "--qmp", vm.Monitor, "--record", "1h")
	check(t, vm.WaitRounds(ctx, 2))
	interrupt()
	if _, _, err := wait(); err == nil {
		t.Fatal("it ended before it was interrupted")
	}
	vm.Close()

	// The fork's working set is the image's too.
	var image struct {
		WorkingSet struct{ Count int } `json:"working_set"`
	}
	for image.WorkingSet.Count == 0 {
		s.run(ctx, &image, "image", "show", "one")
		time.Sleep(10 * time.Millisecond) // or until ctx ends, and the command fails
	}
	const perChunk = 16
	if n := image.WorkingSet.Count * perChunk; n < 60<<8 {
		t.Errorf("%d pages were recorded of a guest that goes through %d", n, 60<<8)
	}

	vm = start(t, o)
	var r restoredInfo
	s.run(ctx, &r, "image", "restore", "one", "--qmp", vm.Monitor)
	check(t, vm.WaitRounds(ctx, 2))
	t.Logf("%d chunks recorded; restored: %+v", image.WorkingSet.Count, r)
	if r.Prefetched != image.WorkingSet.Count || r.Demanded*3 > 60<<8 {
		t.Errorf("asked for %d times with %d chunks sent first; without it was more than %d times", r.Demanded, r.Prefetched, 60<<8)
	}
}
