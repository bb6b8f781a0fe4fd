package guest_test

import (
	"strings"
	"testing"
	"time"

	"lsad/tools/guest"
)

// blocksKillTest kills the server with SIGKILL while the kernel writes to the
// bare device, and holds that no acknowledged write is gone. TestKill of
// cmd/lsad does it again and again, at less cost.
func blocksKillTest(t *testing.T, vm *guest.VM) {
	s := startServer(t, *serverFlag)
	attach(t, vm, s)
	killUnder(t, vm, s, "stamps write /dev/nbd0 /tmp/stamps 1")
	attach(t, vm, s)
	vm.MustRun(t, "stamps verify /dev/nbd0 /tmp/stamps")
	detach(t, vm)
}

// ext4KillTest holds that a file system is sound after the server was killed
// under it, and keeps what it had synced.
func ext4KillTest(t *testing.T, vm *guest.VM) {
	s := startServer(t, *serverFlag)
	attach(t, vm, s)
	vm.MustRun(t, `mkfs.ext4 -q -F /dev/nbd0; mount /dev/nbd0 /mnt; mkdir /mnt/safe /mnt/busy
		filetree write /mnt/safe 1 300; sync`)
	killUnder(t, vm, s, "filetree write /mnt/busy 2 1000000")
	attach(t, vm, s)
	vm.MustRun(t, `mount /dev/nbd0 /mnt; filetree verify /mnt/safe 1 300; umount /mnt
		e2fsck -f -n /dev/nbd0 >/tmp/fsck 2>&1 || { cat /tmp/fsck >&2; exit 1; }`)
	detach(t, vm)
}

// killUnder starts a script that writes for ever, kills the server once it is
// under way, waits for the script to notice, and starts the server again. The
// volume is detached and unmounted then.
func killUnder(t *testing.T, vm *guest.VM, s *nbdServer, script string) {
	t.Helper()
	before := s.used()
	job, err := vm.Go(script, nil)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * time.Minute); s.used() < before+8<<20 && !job.Done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the script writes nothing: %+v", job.Output())
		}
	}
	s.kill()
	// The driver sees both connections fail, but leaves a request that was
	// half sent to its timeout of 30 s. Detaching fails that one as well.
	detach(t, vm)
	out, err := job.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.Stderr, "input/output error") && !strings.Contains(out.Stderr, "read-only file system") {
		t.Fatalf("the script ended for a reason of its own: %+v", out)
	}
	vm.MustRun(t, `if grep -q " /mnt " /proc/mounts; then umount /mnt; fi`)
	s.start()
}
