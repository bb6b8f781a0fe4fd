package nbdattach

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
)

// TestLock holds that one can watch a device at a time, and that looking is not in the way of that.
func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if fileLocked(name) {
		t.Error("a file that is not there is locked")
	}
	end := make(chan struct{})
	var looking sync.WaitGroup
	for range 4 {
		looking.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					fileLocked(name)
				}
			}
		})
	}
	for range 500 {
		f, err := lockFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !fileLocked(name) {
			t.Fatal("it is locked, and is not seen to be")
		}
		if _, err := lockFile(name); !errors.Is(err, ErrWatched) {
			t.Fatalf("a second lock: %v", err)
		}
		f.Close()
	}
	close(end)
	looking.Wait()
	if fileLocked(name) {
		t.Error("it is locked by nobody")
	}
}
