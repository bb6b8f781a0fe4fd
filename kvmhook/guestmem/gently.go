package guestmem

import (
	"context"
	"runtime"

	"golang.org/x/sys/unix"
)

// gently is the key of a nice value in a context.
type gently struct{}

// Gently has the walk of memory under the context that it returns leave the processors to others: its goroutines run on
// threads of their own that have this nice value.
func Gently(ctx context.Context, nice int) context.Context {
	return context.WithValue(ctx, gently{}, nice)
}

// behave gives a worker the priority that ctx wants. The worker's thread ends with it, since it is never unlocked: no other
// goroutine gets a thread of that priority.
func behave(ctx context.Context) {
	if nice, ok := ctx.Value(gently{}).(int); ok {
		LowerThread(nice)
	}
}

// LowerThread gives the calling goroutine a thread of its own with a nice value. The thread ends with the goroutine.
func LowerThread(nice int) {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice) // 0 is this thread. It works without, only not as well
}
