package guest_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"lsad/tools/guest"
)

// builds are the programs that tests have asked for. Each is built once, so
// that all tests use the same one even if its source changes meanwhile.
var builds struct {
	mu   sync.Mutex
	dir  string
	done map[string]string // import path to file
}

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lsad-guest-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	builds.dir, builds.done = dir, map[string]string{}
	return m.Run()
}

// randomFile returns a file of 8 MiB of random data, for guests that need more of it than an emulated /dev/urandom soon
// makes.
func randomFile(t *testing.T) string {
	t.Helper()
	data := make([]byte, 8<<20)
	rand.Read(data)
	path := filepath.Join(t.TempDir(), "random")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// buildTest returns the static test program of a package of this module.
func buildTest(t *testing.T, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), path.Base(pkg)+".test")
	cmd := exec.Command("go", "test", "-c", "-o", bin, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v: %s", pkg, err, out)
	}
	return bin
}

// build returns a static program of this module, named by its import path.
func build(t *testing.T, pkg string) string {
	t.Helper()
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if bin, ok := builds.done[pkg]; ok {
		return bin
	}
	bin := filepath.Join(builds.dir, path.Base(pkg))
	// Not the test's context: the program is for later tests too.
	if err := guest.BuildGo(context.Background(), pkg, bin); err != nil {
		t.Fatal(err)
	}
	builds.done[pkg] = bin
	return bin
}
