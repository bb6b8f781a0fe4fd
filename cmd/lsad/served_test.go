package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestRuntimeDir(t *testing.T) {
	for _, test := range []struct {
		systemd, session string
		uid              int
		want             string
	}{
		{"/run/lsad:/run/more", "/run/user/7", 0, "/run/lsad"}, {"", "", 0, "/run/lsad"},
		{"", "/run/user/7", 7, "/run/user/7/lsad"}, {"", "", 7, ""},
	} {
		env := map[string]string{"RUNTIME_DIRECTORY": test.systemd, "XDG_RUNTIME_DIR": test.session}
		if got := runtimeDir(func(name string) string { return env[name] }, test.uid); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

// TestRestored holds that a data directory which was put back from a copy has another incarnation, so that who had
// reconnects to nothing older than what it was told is there; and that a restart, clean or not, has not.
func TestRestored(t *testing.T) {
	needTool(t, "nbdinfo")
	dir := t.TempDir()
	data := filepath.Join(dir, "lsad-data")
	incarnation := func() string {
		t.Helper()
		out := mustSh(t, dir, "nbdinfo "+uri("vol0"))
		m := regexp.MustCompile(`incarnation ([0-9a-f]+)-`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no incarnation in %s", out)
		}
		return m[1]
	}
	p := serveIn(t, dir, small...)
	first := incarnation()
	p.stop()
	mustSh(t, dir, "cp -a lsad-data copy")
	p = serveIn(t, dir, again...)
	p.kill()
	p = serveIn(t, dir, again...)
	if got := incarnation(); got != first {
		t.Errorf("restarts changed the incarnation from %s to %s", first, got)
	}
	p.stop()
	if err := os.Rename(data, filepath.Join(dir, "newer")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "copy"), data); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, again...)
	second := incarnation()
	if second == first {
		t.Error("a directory that was restored from a copy has the same incarnation")
	}
	if !strings.Contains(p.stderr(), "restored from a copy") {
		t.Errorf("the server does not say so: %s", p.stderr())
	}
	p.stop()
	p = serveIn(t, dir, again...)
	if got := incarnation(); got != second {
		t.Errorf("the restart after it changed the incarnation from %s to %s", second, got)
	}
	p.stop()
}
