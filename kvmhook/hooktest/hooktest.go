// Package hooktest has what the tests of kvmhook's sources share: a VMM whose memory a hook serves. It is for tests only,
// and owns what it starts until the test ends.
package hooktest

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"lsad/kvmhook"
	"lsad/kvmhook/uffd"
	"lsad/kvmhook/vmmtest"
)

// Patience is how long anything may take that a test waits for.
const Patience = 30 * time.Second

// Serve starts a VMM with one mapping of the whole image, of pages of 4 KiB, and the hook that serves it. It skips the
// test where there is no userfaultfd.
func Serve(t testing.TB, o kvmhook.Options) (*vmmtest.Process, *kvmhook.Hook) {
	t.Helper()
	fd, err := uffd.Open(uffd.FeatureEventRemove)
	if err != nil {
		t.Skipf("no userfaultfd here (it needs root, or the sysctl vm.unprivileged_userfaultfd): %v", err)
	}
	fd.Close()
	h, err := kvmhook.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hook")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && err != context.Canceled {
			t.Errorf("Serve: %v", err)
		}
	})
	v, err := vmmtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.Kill()
		select {
		case err := <-ended: // by itself, when the VMM has ended
			ended <- err
		case <-time.After(Patience):
			t.Error("the hook does not end with its VMM")
		}
	})
	if _, err := v.Do(vmmtest.Order{
		Op: vmmtest.OpMap, Socket: path, Version: 3, Regions: []vmmtest.Region{{Size: o.Source.Size(), Page: vmmtest.SmallPage}},
	}, Patience); err != nil {
		t.Fatal(err)
	}
	return v, h
}
