package guest

import (
	"errors"
	"os"
	"testing"
)

// Start boots a guest for a test and closes it when the test ends. The test is
// skipped if LSAD_TEST is not "full", since a guest takes many seconds, or if
// guests cannot run on this machine. If the test fails, the guest's console is
// logged.
func Start(t testing.TB, o Options) *VM {
	t.Helper()
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	vm, err := Boot(t.Context(), o)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("guest: Linux %s, ready after %.1f s", vm.Release, vm.Uptime.Seconds())
	t.Cleanup(func() {
		vm.Close()
		if t.Failed() {
			t.Logf("the guest's console:\n%s", vm.Console())
		}
	})
	return vm
}

// OnlySoak skips a test, unless LSAD_SOAK is set, because others say nearly as much in less time.
func OnlySoak(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("LSAD_SOAK") == "" {
		t.Skip(why + ": set LSAD_SOAK=1 to run it")
	}
}

// MustRun runs a script under "set -e" and returns what it printed to standard
// output. Any failure of it is fatal to the test.
func (vm *VM) MustRun(t testing.TB, script string) string {
	t.Helper()
	out, err := vm.Run(t.Context(), "set -e\n"+script)
	if err != nil || out.Code != 0 {
		t.Fatalf("script in the guest: status %d, error %v\n%s\nstdout: %s\nstderr: %s",
			out.Code, err, script, out.Stdout, out.Stderr)
	}
	return out.Stdout
}
