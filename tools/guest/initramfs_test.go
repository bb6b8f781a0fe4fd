package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCpio holds that cpio itself unpacks what we write.
func TestCpio(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed: nothing to compare with")
	}
	host := filepath.Join(t.TempDir(), "host")
	if err := os.WriteFile(host, []byte("12345"), 0o750); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	c := newCpioWriter(&archive)
	c.file("/a/b/copied", host)
	c.bytes("/a/b/empty", 0o600, "")
	c.bytes("/a/b/copied", 0o600, "a second entry of a name is left out")
	c.symlink("/bin/link", "../a/b/copied")
	c.dir("/a/private", 0o700)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cpio", "-idm", "--quiet")
	cmd.Dir = t.TempDir()
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(cmd.Dir, "bin", "link")); err != nil || string(got) != "12345" {
		t.Errorf("through the link: %q, %v", got, err)
	}
	for name, want := range map[string]os.FileMode{"a/b/copied": 0o750, "a/b/empty": 0o600, "a/private": 0o700 | os.ModeDir} {
		st, err := os.Stat(filepath.Join(cmd.Dir, name))
		if err != nil || st.Mode() != want {
			t.Errorf("%s: mode %v instead of %v, error %v", name, st.Mode(), want, err)
		}
	}
}

// TestCpioMissingFile holds that a file that cannot be read is an error of the
// whole archive.
func TestCpioMissingFile(t *testing.T) {
	c := newCpioWriter(&bytes.Buffer{})
	c.file("/x", filepath.Join(t.TempDir(), "missing"))
	c.bytes("/y", 0o600, "y")
	if err := c.close(); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

// TestSharedLibraries holds that a dynamic program's loader and C library are
// found, and that a file that is no program has none.
func TestSharedLibraries(t *testing.T) {
	libs, err := sharedLibraries(t.Context(), "/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"/ld-linux", "/libc.so"} {
		if !slices.ContainsFunc(libs, func(l string) bool { return strings.Contains(l, part) }) {
			t.Errorf("ls: no %s* among %q", part, libs)
		}
	}
	if libs, err := sharedLibraries(t.Context(), "/etc/passwd"); err != nil || libs != nil {
		t.Errorf("a text file: %q, %v", libs, err)
	}
}
