package qmp

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBackendDeleted holds that a file which has the name of a VM's RAM is not taken for it if that was deleted. The
// process behind the monitor is this one.
func TestBackendDeleted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ram")
	create := func() {
		t.Helper()
		if err := os.WriteFile(name, make([]byte, os.Getpagesize()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	create()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	ram, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(ram)
	monitor := func() *Client {
		t.Helper()
		c, err := Dial(t.Context(), "unix", serve(t, greeting, func(execute string, _ bool, id int) string {
			switch execute {
			case "query-memdev":
				return fmt.Sprintf(`{"return": [{"id": "mem0", "share": true}], "id": %d}`, id)
			case "qom-get":
				return fmt.Sprintf(`{"return": %q, "id": %d}`, name, id)
			}
			return ok(execute, false, id)
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	holds := func(want bool, when string) {
		t.Helper()
		all, err := monitor().Backends(t.Context())
		if err != nil || len(all) != 1 || all[0].File != name || all[0].Deleted != want {
			t.Errorf("%s: %+v, %v", when, all, err)
		}
	}
	holds(false, "there")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	create()
	holds(true, "another file of that name")
}
