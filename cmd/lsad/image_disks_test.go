package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/server/admin"
)

// TestDisksOf holds which images may be resumed as they are, and what the others are told.
func TestDisksOf(t *testing.T) {
	again := func(other string) string { return "resume " + other }
	for _, fine := range [][]admin.ImageVolume{nil, {{Name: "disk", Clone: "web2-disk"}}} {
		if err := disksOf("web", "", fine, again); err != nil {
			t.Errorf("%+v: %v", fine, err)
		}
	}
	err := disksOf("web", "", []admin.ImageVolume{{Name: "a"}, {Name: "b"}}, again)
	if !errors.Is(err, errNeedsFork) {
		t.Fatal(err)
	}
	for _, text := range []string{"(a, b)", "lsad image fork web NEW", "NEW-a, NEW-b", "resume NEW", "--without-volumes"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("it does not say %q: %v", text, err)
		}
	}
	if admin.CodeOf(coded(err)) != admin.CodeInvalid {
		t.Error("it has no code")
	}
	err = disksOf("web2", "web", []admin.ImageVolume{{Name: "a", Clone: "web2-a"}, {Name: "b", Clone: "web2-b", Written: true}}, again)
	if !errors.Is(err, errNeedsFork) {
		t.Fatal(err)
	}
	for _, text := range []string{"(web2-b)", "lsad image fork web NEW", "NEW-a, NEW-b", "resume NEW"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("it does not say %q: %v", text, err)
		}
	}
}

// TestHookNeedsFork holds that a hook does not serve an image whose disks go on, unless it is told to, or its VM runs.
func TestHookNeedsFork(t *testing.T) {
	raced(t, "TestHook")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	makeRAM(t, filepath.Join(dir, "ram"), 1)
	must(t, dir, "image", "import", "vm", "ram", "--with-volume", "vol0", "--paused")
	must(t, dir, "image", "fork", "vm", "fork")
	if r := lsad(t, dir, "hook", "--socket", "hook.sock", "--image", "vm"); r.code != exitFailed || !strings.Contains(r.stderr, "lsad image fork vm NEW") || !strings.Contains(r.stderr, "lsad hook --image NEW --socket hook.sock") {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"fork"}, {"vm", "--without-volumes"}} {
		s := begin(t, dir, append([]string{"hook", "--socket", "hook.sock", "--image"}, args...)...)
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, "hook.sock")); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v: it does not listen: %s", args, s.said())
			}
		}
		if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("%v: %v: %s", args, err, s.said())
		}
	}
	if _, err := exec.LookPath("qemu-io"); err == nil {
		mustSh(t, dir, "qemu-io -f raw -c 'write 0 4k' "+uri("fork-vol0"))
		if r := lsad(t, dir, "hook", "--socket", "hook.sock", "--image", "fork"); r.code != exitFailed || !strings.Contains(r.stderr, "fork-vol0") || !strings.Contains(r.stderr, "lsad image fork vm NEW") {
			t.Errorf("a fork that a VM has run from: %+v", r)
		}
		if out := must(t, dir, "image", "show", "fork"); !strings.Contains(out, "written to since") {
			t.Error(out)
		}
	} else {
		t.Log("qemu-io is not installed: what is said of a fork that was written to is not tried")
	}
	env := map[string]string{"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_FDS": "2"}
	if !passed(func(name string) string { return env[name] }, os.Getpid()) {
		t.Error("a hook that goes on is refused")
	}
	env["LISTEN_PID"] = "1"
	if passed(func(name string) string { return env[name] }, os.Getpid()) {
		t.Error("descriptors for another process were taken for its own")
	}
	p.stop()
}
