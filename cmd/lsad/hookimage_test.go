package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lsad/kvmhook/vmmtest"
)

// otherImage makes another image of the size of vm1, none of whose pages is one of vm1's.
func otherImage(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "other"), bytes.Repeat([]byte("another "), hookPages*hookPage/8), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "image", "import", name, "other", "--paused")
}

// An image is renamed and another one takes its name, before the hook has made all its connections, or while the server
// is away: the hook ends, and the guest never sees a page of the other one.
func TestHookOtherImage(t *testing.T) {
	raced(t, "TestHookServerKilled")
	for _, image := range []string{"vm1", "nbd+unix:///vm1?socket=lsad-data/nbd.sock"} {
		for _, restart := range []bool{false, true} {
			dir, server := hookRig(t)
			p := startHook(t, dir, "--image", image) // all that it has asked is where holes are
			must(t, dir, "image", "rename", "vm1", "vm1-old")
			otherImage(t, dir, "vm1")
			if restart {
				server.kill()
				serveIn(t, dir, again...)
			}
			v := bootVMM(t, dir)
			begun, err := v.Begin(vmmtest.Order{Op: vmmtest.OpTouch, First: 16, Last: hookPages, Threads: 4})
			if err != nil {
				t.Fatal(err)
			}
			if code := p.ends(); code != exitFailed {
				t.Errorf("exit code %d", code)
			}
			if said := p.stderr(); !strings.Contains(said, `"vm1"`) || !strings.Contains(said, "it is not the image that it was: its volume was") {
				t.Errorf("it said:\n%s", said)
			}
			select {
			case a := <-begun:
				t.Errorf("%s, the server restarted %v: the guest has %d pages that nobody should have given it", image, restart, len(a.Hashes))
			default:
			}
			v.Kill()
		}
	}
}

// A hook that is started again does not go on with another image of that name.
func TestHookKilledOtherImage(t *testing.T) {
	raced(t, "TestHookKilledWithServer")
	dir, _ := hookRig(t)
	systemd := newFakeSystemd(t)
	p := systemd.start(dir, "hook --socket hook.sock --no-fill --image vm1", nil, "")
	waitHook(t, p, "Waiting for a VMM")
	v := bootVMM(t, dir)
	files, names := systemd.kept()
	touchVMM(t, v, 16, 100)
	p.kill()
	must(t, dir, "image", "rename", "vm1", "vm1-old")
	otherImage(t, dir, "vm1")
	p = systemd.start(dir, "hook --socket hook.sock --no-fill --image vm1", files, names)
	if code := p.ends(); code != exitFailed || !strings.Contains(p.stderr(), "its volume was") {
		t.Errorf("exit code %d:\n%s", code, p.stderr())
	}
	must(t, dir, "image", "rename", "vm1", "vm1-other")
	must(t, dir, "image", "rename", "vm1-old", "vm1")
	p = systemd.start(dir, "hook --socket hook.sock --no-fill --image vm1", files, names)
	waitHook(t, p, "Going on with the VM")
	touchVMM(t, v, 0, hookPages)
}
