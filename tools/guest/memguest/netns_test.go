package memguest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"lsad/memsvc/qemu/qmp"
)

// hosts makes two network namespaces that reach each other at 10.77.0.1 and 10.77.0.2, and returns their names.
func hosts(t *testing.T) (a, b string) {
	t.Helper()
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces are for root")
	}
	a, b = fmt.Sprintf("lsad-a-%d", os.Getpid()), fmt.Sprintf("lsad-b-%d", os.Getpid())
	run := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", args, err, out)
		}
	}
	for _, name := range []string{a, b} {
		run("netns add " + name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	run("link add veth-a netns " + a + " type veth peer name veth-b netns " + b)
	run("-n " + a + " addr add 10.77.0.1/24 dev veth-a")
	run("-n " + b + " addr add 10.77.0.2/24 dev veth-b")
	run("-n " + a + " link set veth-a up")
	run("-n " + b + " link set veth-b up")
	return a, b
}

// TestMigrateBetweenHosts moves a VM by the command from one network namespace to another. The guest has freed most
// of its memory, which is not sent, and checks the rest all the way.
func TestMigrateBetweenHosts(t *testing.T) {
	a, b := hosts(t)
	ctx := withPatience(t)
	o := Options{MemoryMiB: 512, UsedMiB: 40, FreedMiB: 300}
	o.NetNS = a
	src, ram := source(t, ctx, o)
	o.NetNS, o.Incoming, o.RAMName = b, true, "mem0"
	dst := start(t, o)
	check(t, dst.Receive(ctx, "tcp:10.77.0.2:4444"))
	program, err := lsad()
	check(t, err)
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", a, program, "image", "migrate", "--json",
		"--ram", ram.Name(), "--qmp", src.Monitor, "--to", "10.77.0.2:4444")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("migrate: %v: %s", err, &errs)
	}
	t.Logf("%s\n%s", &errs, out)
	var r struct {
		Owner     string
		DataPages int64 `json:"data_pages"`
		Elided    int64 `json:"free_pages"`
	}
	check(t, json.Unmarshal(out, &r))
	if r.Owner != "destination" || r.Elided < 75000 || r.DataPages > 512<<8-r.Elided {
		t.Errorf("%+v", r)
	}
	for _, line := range []string{"preparing: the VM is at the source", "running: the VM is at the destination", "complete: the VM is at the destination"} {
		if !strings.Contains(errs.String(), line) {
			t.Errorf("it does not say %q", line)
		}
	}
	stop, err := src.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == "STOP" })
	check(t, err)
	resume, err := dst.QMP.Wait(ctx, func(e qmp.Event) bool { return e.Name == "RESUME" })
	check(t, err)
	t.Logf("from the STOP of the source to the RESUME of the destination: %v", resume.Time.Sub(stop.Time))
	check(t, dst.WaitRounds(ctx, 3))
}
