package main

import (
	"strings"
	"testing"
	"time"

	"lsad/kvmhook"
)

// The hook and the server of its image were killed together, and the hook is started first: it waits for the server, says
// so, and the VM goes on.
func TestHookKilledWithServer(t *testing.T) {
	for _, image := range []string{"vm1", "nbd+unix:///vm1?socket=lsad-data/nbd.sock"} {
		dir, server := hookRig(t)
		systemd := newFakeSystemd(t)
		args := "hook --socket hook.sock --no-fill --image " + image
		p := waitHook(t, systemd.start(dir, args, nil, ""), "Waiting for a VMM")
		v := bootVMM(t, dir)
		files, names := systemd.kept()
		touchVMM(t, v, 0, 100)
		server.kill()
		p.kill()

		p = systemd.start(dir, args+" --source-timeout 200ms", files, names)
		if code := p.ends(); code != exitFailed || !strings.Contains(p.stderr(), "out of reach for") || !strings.Contains(p.stderr(), "the VM waits") {
			t.Errorf("exit code %d:\n%s", code, p.stderr())
		}
		p = systemd.start(dir, args+" --source-timeout 1m", files, names)
		var st kvmhook.Status
		for end := time.Now().Add(hookPatience); st.State != kvmhook.StateOpening; time.Sleep(5 * time.Millisecond) {
			if r := lsad(t, dir, "hook", "status", "--socket", "hook.sock"); r.code == 0 {
				st = hookStatus(t, dir)
			}
			if time.Now().After(end) {
				t.Fatalf("the hook does not wait for its source: %s", p.stderr())
			}
		}
		if !st.Kept || st.Source.Name != image || st.Source.OutageSeconds <= 0 {
			t.Errorf("%+v", st)
		}
		serveIn(t, dir, again...)
		waitHook(t, p, "Going on with the VM")
		touchVMM(t, v, 0, hookPages)
		v.Kill()
		if code := p.ends(); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, p.stderr())
		}
	}
}

// Nobody waits for ever for the source of a VM that has ended.
func TestHookKilledWithVM(t *testing.T) {
	dir, server := hookRig(t)
	systemd := newFakeSystemd(t)
	p := waitHook(t, systemd.start(dir, "hook --socket hook.sock --image vm1", nil, ""), "Waiting for a VMM")
	v := bootVMM(t, dir)
	files, names := systemd.kept()
	server.kill()
	p.kill()
	p = systemd.start(dir, "hook --socket hook.sock --image vm1", files, names)
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
}
