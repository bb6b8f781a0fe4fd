package guestmem

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// niceOfThread is the nice value of the calling thread.
func niceOfThread(t *testing.T) int {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Error(err)
	}
	return 20 - n // as the kernel returns it
}

// TestGently holds that a walk has the priority that was asked for, in all of its threads, and that this stays with it.
func TestGently(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := niceOfThread(t)
	want := min(was+3, 19)
	for _, test := range []struct {
		ctx  context.Context
		want int
	}{{t.Context(), was}, {Gently(t.Context(), want), want}, {t.Context(), was}} {
		err := parallel(test.ctx, 64, func(int) error {
			if got := niceOfThread(t); got != test.want {
				t.Errorf("nice %d instead of %d", got, test.want)
			}
			runtime.Gosched()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if got := niceOfThread(t); got != was {
				t.Errorf("another goroutine has nice %d instead of %d", got, was)
			}
		})
	}
	wg.Wait()
}
