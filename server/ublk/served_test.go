package ublk

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestServed holds that a device that another live process serves is neither taken over nor removed, and is not
// waited for either, and that it can be taken over once that process is killed.
func TestServed(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(os.Args[0], "1")
	cmd.Env = append(os.Environ(), deathEnv+"=serves")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	id, err2 := strconv.Atoi(strings.TrimSpace(line))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err, cmd.Process.Kill(), cmd.Wait())
	}
	begin := time.Now()
	if _, err := Resume(t.Context(), id, &memory{size: 1 << 20}, Options{}); !errors.Is(err, ErrServed) {
		t.Errorf("taken over from a live server: %v", err)
	}
	if err := Remove(t.Context(), id); !errors.Is(err, ErrServed) {
		t.Errorf("removed from a live server: %v", err)
	}
	if took := time.Since(begin); took > 4*dyingTime {
		t.Errorf("it took %v", took)
	}
	if err := writeBlock(blockPath(id)); err != nil {
		t.Errorf("a write to the other's device: %v", err)
	}
	t.Log(cmd.Process.Kill(), cmd.Wait())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := Resume(ctx, id, &memory{size: 1 << 20}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(false); err != nil {
		t.Error(err)
	}
}

// TestFailed holds what becomes of a device whose queue ends by an error: it says so, it is not removed without
// force, and with force it is, and who waits for it has an error.
func TestFailed(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	x := &memory{size: 1 << 20}
	d, err := Add(x, Options{Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	// The queue's next command goes to what takes none.
	other, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		err = unix.Dup3(other, d.char, unix.O_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(other)
	waits := make(chan error, 1)
	go func() { waits <- writeBlock(d.Path()) }()
	select {
	case <-d.failed:
	case <-time.After(time.Minute):
		t.Fatal("the queue goes on")
	}
	if err := d.Failure(); !errors.Is(err, ErrFailed) {
		t.Error(err)
	}
	if err := d.Stop(false); !errors.Is(err, ErrFailed) {
		t.Errorf("removed without force: %v", err)
	}
	select {
	case err := <-waits:
		t.Errorf("it does not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := d.Stop(true); err != nil {
		t.Error(err)
	}
	if err := <-waits; !errors.Is(err, unix.EIO) {
		t.Errorf("a write that waited: %v", err)
	}
	if x.count("close") != 1 {
		t.Errorf("the calls are %q", x.calls)
	}
}
