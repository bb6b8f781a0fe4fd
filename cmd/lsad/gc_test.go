package main

import (
	"os"
	"path/filepath"
	"testing"

	"lsad/server/admin"
)

func gcStatusOf(t *testing.T, dir, device string) admin.GCDevice {
	t.Helper()
	for _, d := range mustJSON[[]admin.GCDevice](t, dir, "gc", "status") {
		if d.Device == device {
			return d
		}
	}
	t.Fatalf("gc status does not show device %s", device)
	return admin.GCDevice{}
}

// TestGCSettingsOfOtherDevices: marks that fit the devices there are do not keep a smaller one out, nor the server from
// starting; and what was set for a device goes with it.
func TestGCSettingsOfOtherDevices(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	must(t, dir, "gc", "set", "--low=30")
	must(t, dir, "gc", "set", "d2", "--low=40")
	must(t, dir, "device", "add", "lsad-data/few:16MiB")
	for range 2 {
		if d := gcStatusOf(t, dir, "few"); d.Low != 2 || d.AltHigh != 5 {
			t.Errorf("marks of the smaller device: %+v", d)
		}
		if d := gcStatusOf(t, dir, "d0"); d.Low != 30 {
			t.Errorf("marks of another device: %+v", d)
		}
		p.kill()
		p = serveIn(t, dir, again...)
	}
	must(t, dir, "device", "remove", "d2")
	must(t, dir, "device", "add", "lsad-data/d2")
	if d := gcStatusOf(t, dir, "d2"); d.Low != 30 {
		t.Errorf("a new device has what was set for another one: %+v", d)
	}
	p.stop()
}

// TestGCNamesOneDevice: of two devices whose files are called the same, the one that was named is set.
func TestGCNamesOneDevice(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p := serveIn(t, dir, "--segment-size=1MiB", "--map-cache=16MiB", "--http=none", "--device=a/dev:64MiB", "--device=b/dev:64MiB")
	b := filepath.Join(dir, "b/dev")
	must(t, dir, "gc", "set", b, "--low=20")
	if d := gcStatusOf(t, dir, b); d.Low != 20 {
		t.Errorf("%+v", d)
	}
	if d := gcStatusOf(t, dir, filepath.Join(dir, "a/dev")); d.Low == 20 {
		t.Errorf("the other one was set: %+v", d)
	}
	checkFailure(t, lsad(t, dir, "gc", "set", "dev", "--low=9"), 1, []string{"2 devices of the array are called so", "(slot 1)"})
	checkFailure(t, lsad(t, dir, "gc", "run", "dev"), 1, []string{"2 devices"})
	checkFailure(t, lsad(t, dir, "gc", "set", "", "--low=9"), 2, []string{"DEVICE is empty"})
	p.stop()
}
