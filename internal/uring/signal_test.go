package uring

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignals: a signal, such as the runtime sends to have a goroutine give way, does not end a wait early. The kernel
// then answers how much it took, and no error.
func TestSignals(t *testing.T) {
	r := newRing(t, 1, Options{LongCmd: true})
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	waiting := unix.Gettid()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 20 {
			time.Sleep(2 * time.Millisecond)
			_ = unix.Tgkill(unix.Getpid(), waiting, unix.SIGURG)
		}
		_, _ = pw.Write([]byte{1})
	}()
	sqe, err := r.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	sqe.Op, sqe.FD, sqe.Addr, sqe.Len, sqe.UserData = OpRead, int32(pr.Fd()), Address(&mem[0]), 1, 9
	if err := r.Submit(1); err != nil {
		t.Fatal(err)
	}
	if c, ok := r.Next(); !ok || c.UserData != 9 || c.Res != 1 {
		t.Errorf("%+v, %v", c, ok)
	}
	<-sent
}
