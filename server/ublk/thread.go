package ublk

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// onThread runs f in a thread of its own, and returns once that thread is gone.
func onThread(f func() error) error {
	tid, err := lastOfThread(f)
	for unix.Tgkill(unix.Getpid(), tid, 0) == nil {
		time.Sleep(100 * time.Microsecond) // the kernel tells nobody; it takes about that long
	}
	return err
}

// lastOfThread runs f in a thread that ends after it, and returns the thread's number.
func lastOfThread(f func() error) (tid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked, so that the thread ends
		if tid = unix.Gettid(); tid != unix.Getpid() {
			err = f()
			return
		}
		// The process's first thread would stay. It is held meanwhile, so that another is taken.
		tid, err = lastOfThread(f)
		runtime.UnlockOSThread()
	}()
	<-done
	return tid, err
}
