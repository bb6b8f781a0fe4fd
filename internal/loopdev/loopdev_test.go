package loopdev

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOver(t *testing.T) {
	sys := t.TempDir()
	for loop, backing := range map[string]string{
		"loop0": "/dev/ublkb1", "loop1": "/dev/ublkb1p2", "loop2": "/dev/ublkb10", "loop3": "/dev/ublkb1px", "loop4": "/dev/ublkb1p", "loop5": "/srv/image",
	} {
		dir := filepath.Join(sys, loop, "loop")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "backing_file"), []byte(backing+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(sys, "loop6"), 0o700); err != nil { // on nothing
		t.Fatal(err)
	}
	if got := over(sys, "/dev/ublkb1"); !slices.Equal(got, []string{"/dev/loop0", "/dev/loop1"}) {
		t.Errorf("%q", got)
	}
	if got := over(sys, "/dev/ublkb2"); got != nil {
		t.Errorf("%q", got)
	}
}
