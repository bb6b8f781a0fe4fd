package lsa

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestInUseSaysWhat: who deletes what is open is told whether it is the volume or a
// snapshot of it, and each client once.
func TestInUseSaysWhat(t *testing.T) {
	r := newRig(t, 1, 24)
	ctx := context.Background()
	r.volume("v", 1<<20).Close()
	if err := r.a.Snapshot(ctx, "v", "s"); err != nil {
		t.Fatal(err)
	}
	for _, o := range []OpenOptions{{Client: "b"}, {Client: "a"}, {Client: "a"}} {
		o.ReadOnly = true
		if _, err := r.a.OpenVolume("v@s", o); err != nil {
			t.Fatal(err)
		}
	}
	of := `snapshot "v@s" is in use by a (2 connections), b; disconnect`
	for _, c := range []struct {
		name, want string
	}{{"v@s", of}, {"v", of}} {
		if err := r.a.DeleteVolume(ctx, c.name); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("delete %s: %v, want %q", c.name, err, c.want)
		}
	}
	r.handle("v")
	if err := r.a.DeleteVolume(ctx, "v"); err == nil || !strings.Contains(err.Error(), `b, volume "v" by test; disconnect`) {
		t.Errorf("delete of a volume that is open, too: %v", err)
	}
}
