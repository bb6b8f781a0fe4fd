package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lsad/tools/guest/wire"
)

// agent runs the host's scripts. mu guards both fields below it; it is held
// while an event is written, so that lines do not mix.
type agent struct {
	mu   sync.Mutex
	enc  *json.Encoder
	jobs map[uint64]int // job to process group
}

// serve says hello and obeys the host until it closes the port.
func serve() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	a := &agent{enc: json.NewEncoder(port), jobs: map[uint64]int{}}
	a.send(wire.Event{Hello: hello()})
	dec := json.NewDecoder(port)
	for {
		var req wire.Request
		if err := dec.Decode(&req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read a request: %w", err)
		}
		if req.Kill {
			a.kill(req.ID)
			continue
		}
		a.start(req)
	}
}

func (a *agent) send(ev wire.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.enc.Encode(ev); err != nil {
		fmt.Fprintln(os.Stderr, "agent: write an event:", err)
	}
}

// openPort opens the harness's port. Its name reaches the kernel some time
// after the device was found, so this looks again for a while, a long one where
// the host is busy.
func openPort() (*os.File, error) {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		f, err := findPort()
		if err == nil || time.Now().After(deadline) {
			return f, err
		}
	}
}

// findPort looks for the harness's port among the virtio-serial ports.
func findPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(name)) == wire.PortName {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio-serial port is called %s", wire.PortName)
}

func hello() *wire.Hello {
	h := &wire.Hello{Err: os.Getenv(setupErrEnv)}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		h.Release = unix.ByteSliceToString(uts.Release[:])
	}
	if raw, err := os.ReadFile("/proc/uptime"); err == nil {
		fmt.Sscan(string(raw), &h.Uptime)
	}
	return h
}
