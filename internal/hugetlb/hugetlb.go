// Package hugetlb has the kernel set huge pages aside, for tests.
//
// What it changes is a setting of the whole machine, so it holds a lock on that setting's file from before it reads it
// until it has put it back: tests of other processes that want huge pages wait.
package hugetlb

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// setting is how many huge pages of the usual size there are, in use or not (Documentation/admin-guide/sysctl/vm.rst).
const setting = "/proc/sys/vm/nr_hugepages"

// Reserve makes the kernel set n more huge pages aside until the test ends, and skips the test where that cannot be.
func Reserve(t testing.TB, n int) {
	t.Helper()
	lock(t)
	reserve(t, n)
}

// lock keeps others from Reserve until the test ends.
func lock(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(setting, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no huge pages can be set aside (it takes root): %v", err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", setting, err)
	}
}

func reserve(t testing.TB, n int) {
	t.Helper()
	before, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if err := write(before + n); err != nil {
		t.Skipf("no huge pages can be set aside: %v", err)
	}
	t.Cleanup(func() {
		if err := write(before); err != nil {
			t.Error(err)
		}
	})
	// The kernel gives what it finds.
	if got, err := read(); err != nil || got < before+n {
		t.Skipf("of %d huge pages the kernel set %d aside (%v)", n, got-before, err)
	}
}

func read() (int, error) {
	text, err := os.ReadFile(setting)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", setting, err)
	}
	return n, nil
}

func write(n int) error { return os.WriteFile(setting, []byte(strconv.Itoa(n)), 0) }
