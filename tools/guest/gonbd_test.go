package guest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lsad/tools/guest"
)

// goNBDTest tries go-nbd's client. It says in its GO option that no data
// follow, and then sends some, which the protocol calls invalid; whether a
// server lets that pass is the server's affair. What is held here is that the
// client gets an answer in either case, that a device attached in this way
// works, and that nobody else is harmed.
func goNBDTest(t *testing.T, vm *guest.VM) {
	if !tryGoNBD(t, vm, startServer(t, "go-nbd")) {
		t.Error("go-nbd's client cannot attach to go-nbd's server: the test is wrong")
	}
	s := startServer(t, *serverFlag)
	attach(t, vm, s)
	got := vm.MustRun(t, fmt.Sprintf("gonbd list %s:%d", guest.HostIP, s.port))
	if !strings.Contains(got, "vol0") && s.kind != "nbdkit" { // which has one export, without a name
		t.Errorf("go-nbd lists %q without vol0", got)
	}
	tryGoNBD(t, vm, s)
	vm.MustRun(t, "dd if=/dev/nbd0 of=/dev/null bs=64k count=16 iflag=direct")
	detach(t, vm)
}

// tryGoNBD attaches, uses and detaches /dev/nbd1 with go-nbd's client if the
// server lets it, and says whether it did.
func tryGoNBD(t *testing.T, vm *guest.VM, s *nbdServer) bool {
	t.Helper()
	job, err := vm.Go(fmt.Sprintf("exec gonbd attach %s:%d vol0 /dev/nbd1", guest.HostIP, s.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * time.Minute); !strings.Contains(job.Output().Stdout, "attached"); time.Sleep(50 * time.Millisecond) {
		if job.Done() {
			t.Logf("go-nbd's attach to %s failed: %s", s.kind, strings.TrimSpace(job.Output().Stderr))
			return false
		}
		if time.Now().After(deadline) {
			job.Kill()
			t.Errorf("go-nbd's attach to %s got no answer", s.kind)
			return false
		}
	}
	vm.MustRun(t, `
		head -c 262144 /dev/urandom > /tmp/random
		dd if=/tmp/random of=/dev/nbd1 bs=64k oflag=direct
		dd if=/dev/nbd1 bs=64k count=4 iflag=direct | cmp - /tmp/random
		nbd-client -d /dev/nbd1`)
	if _, err := job.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("go-nbd's attach to %s works", s.kind)
	return true
}
