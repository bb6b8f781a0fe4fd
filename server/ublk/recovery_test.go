package ublk

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deathEnv has this program die instead of testing: as a server that was killed at some stage of taking a device
// over.
const deathEnv = "LSAD_UBLK_DEATH"

func TestMain(m *testing.M) {
	if stage := os.Getenv(deathEnv); stage != "" {
		fmt.Fprintln(os.Stderr, dieAt(stage))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// dieAt makes a device, or takes the one named by the first argument over, and kills the process. It returns if it
// cannot.
func dieAt(stage string) error {
	id, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	if stage == "added" || stage == "serves" {
		d, err := Add(&memory{size: 1 << 20}, Options{Queues: id, Depth: 4})
		if err != nil {
			return err
		}
		fmt.Println(d.ID())
		if stage == "serves" {
			select {} // until it is killed
		}
		return kill()
	}
	d := newDevice(&memory{size: 1 << 20}, &Options{})
	if err := d.takeOver(context.Background(), id); err != nil {
		return err
	}
	switch stage {
	case "nothing":
		return kill()
	case "all queues":
		if err := d.open(); err != nil {
			return err
		}
		return kill()
	}
	if d.char, err = unix.Open(charPath(id), unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	runtime.LockOSThread()
	q := newQueue(d, 0)
	if err := q.allocate(); err != nil {
		return err
	}
	if err := q.mapRequests(); err != nil {
		return err
	}
	if stage == "one queue" {
		if err := q.fetch(); err != nil {
			return err
		}
	}
	return kill()
}

func kill() error { return unix.Kill(unix.Getpid(), unix.SIGKILL) }

// die has a process die, and returns the number that it printed, or -1.
func die(t *testing.T, stage string, arg int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], strconv.Itoa(arg))
	cmd.Env = append(os.Environ(), deathEnv+"="+stage)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	id := -1
	if lines.Scan() {
		if id, err = strconv.Atoi(lines.Text()); err != nil {
			t.Error(err)
		}
	}
	err = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); !ok || ws.Signal() != unix.SIGKILL {
		t.Fatalf("%s: it was not killed: %v", stage, err)
	}
	return id
}

// TestTakeOver holds that a device can be taken over whatever a server had done with it that was killed while it
// took it over itself, and that who waits for the device sees nothing of it.
func TestTakeOver(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	for _, queues := range []int{1, 2} {
		for _, stages := range [][]string{
			{},
			{"nothing"},
			{"mapped"},
			{"one queue"},
			{"all queues"},
			{"one queue", "mapped", "nothing", "all queues", "one queue"},
		} {
			t.Run(fmt.Sprint(queues, stages), func(t *testing.T) {
				id := die(t, "added", queues)
				removed := false
				t.Cleanup(func() {
					if !removed {
						t.Log(Remove(context.WithoutCancel(t.Context()), id))
					}
				})
				waits := make(chan error, 1)
				go func() { waits <- writeBlock(blockPath(id)) }()
				for _, stage := range stages {
					die(t, stage, id)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				x := &memory{size: 1 << 20}
				d, err := Resume(ctx, id, x, Options{})
				if err != nil {
					t.Fatal(err)
				}
				if err := <-waits; err != nil {
					t.Errorf("a write that waited: %v", err)
				}
				if got := x.count("write 4096 at 8192"); got != 1 {
					t.Errorf("it arrived %d times; the calls are %q", got, x.calls)
				}
				if err := d.Stop(false); err != nil {
					t.Fatal(err)
				}
				removed = true
			})
		}
	}
}

// writeBlock writes one block, past the page cache.
func writeBlock(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	_, err = unix.Pwrite(fd, buf, 8192)
	return err
}
