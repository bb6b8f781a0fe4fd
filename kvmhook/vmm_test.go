package kvmhook

import (
	"os"
	"testing"
	"time"

	"lsad/kvmhook/uffd"
	"lsad/kvmhook/vmmtest"
)

func TestMain(m *testing.M) {
	vmmtest.Main()
	os.Exit(m.Run())
}

type (
	order  = vmmtest.Order
	answer = vmmtest.Answer
)

var hash = vmmtest.Hash

// patience is how long anything may take that a test waits for.
const patience = time.Minute

func needUffd(t testing.TB) {
	t.Helper()
	fd, err := uffd.Open(uffd.FeatureEventRemove)
	if err != nil {
		t.Skipf("no userfaultfd here (it needs root, or the sysctl vm.unprivileged_userfaultfd): %v", err)
	}
	fd.Close()
}

// vmm is a VMM whose failures are the test's.
type vmm struct {
	*vmmtest.Process
	t testing.TB
}

func startVMM(t testing.TB) *vmm {
	t.Helper()
	needUffd(t)
	p, err := vmmtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if _, said := p.State(); t.Failed() && said != "" {
			t.Logf("the VMM said: %.2000s", said)
		}
	})
	return &vmm{p, t}
}

func (v *vmm) start(o order) <-chan answer {
	v.t.Helper()
	c, err := v.Begin(o)
	if err != nil {
		v.t.Fatal(err)
	}
	return c
}

func (v *vmm) await(c <-chan answer, what string) answer {
	v.t.Helper()
	a, err := v.Await(c, patience)
	if err != nil {
		v.t.Fatalf("VMM: %s: %v", what, err)
	}
	return a
}

func (v *vmm) do(o order) answer {
	v.t.Helper()
	return v.await(v.start(o), o.Op)
}
