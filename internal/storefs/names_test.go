package storefs

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// power is lost at an operation: what goes on meanwhile waits.
type power struct {
	mu      sync.Mutex
	d       *disk
	rng     *rand.Rand
	until   int
	after   *vfs.MemFS // what is left
	flushed int        // keys that must be there
	kept    int        // of these, when power was lost
}

func (p *power) inject(op errorfs.Op) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until--; p.until == 0 {
		p.after = p.d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: p.rng.IntN(101), RNG: p.rng})
		p.kept = p.flushed
	}
	return nil
}

func (p *power) lost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.after != nil
}

// TestPowerLoss loses power at any operation, names and data that were not synced at random. The store, which makes new
// manifests all the time, can be opened and has all that was flushed.
func TestPowerLoss(t *testing.T) {
	runs := 150
	if os.Getenv("LSAD_TEST") == "full" {
		runs = 1500
	}
	for run := range runs {
		seed := uint64(time.Now().UnixNano()) + uint64(run)
		rng := rand.New(rand.NewPCG(seed, 0))
		d := newDisk(t)
		if err := mustOpen(t, New(d.fs(), hasty), true).Close(); err != nil {
			t.Fatal(err)
		}
		p := &power{d: d, rng: rng, until: 1 + rng.IntN(150)}
		d.setInject(p.inject)
		db := mustOpen(t, New(d.fs(), hasty), false)
		for n := 0; !p.lost(); n++ {
			put(t, db, n)
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
			p.mu.Lock()
			p.flushed = n + 1
			p.mu.Unlock()
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := openStore(New(p.after, hasty), false)
		if err != nil {
			list, _ := p.after.List("/store")
			t.Fatalf("seed %d: %v; there are %q", seed, err, list)
		}
		holds(t, db, p.kept)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMarkerOrder holds that the directory is synced between the making of a marker and the removal of the one before,
// which a file system may otherwise bring to the disk in any order.
func TestMarkerOrder(t *testing.T) {
	d := newDisk(t)
	fs := New(d.fs(), hasty)
	var order []string
	d.setInject(func(op errorfs.Op) error {
		switch name := op.Path[strings.LastIndexByte(op.Path, '/')+1:]; op.Kind {
		case errorfs.OpCreate, errorfs.OpRemove:
			order = append(order, name)
		case errorfs.OpFileSync:
			order = append(order, "sync "+name)
		}
		return nil
	})
	f, err := fs.Create("/store/marker.manifest.000002.MANIFEST-000005", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := fs.Remove("/store/marker.manifest.000002.MANIFEST-000005"); err != nil {
		t.Fatal(err)
	}
	want := "sync store, marker.manifest.000002.MANIFEST-000005, sync store, marker.manifest.000002.MANIFEST-000005"
	if got := strings.Join(order, ", "); got != want {
		t.Errorf("in order: %s, want %s", got, want)
	}
}
