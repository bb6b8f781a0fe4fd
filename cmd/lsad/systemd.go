package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/config"
)

// errInUse and errRefused are the system's words for what listen and removeStale ask.
const (
	errInUse   = unix.EADDRINUSE
	errRefused = unix.ECONNREFUSED
)

// firstActivated is the first descriptor that systemd passes (SD_LISTEN_FDS_START of sd_listen_fds(3)).
const firstActivated = 3

// activated is what systemd listens on for us, by the FileDescriptorName= of the socket units.
type activated map[string][]net.Listener

// activatedListeners takes over the sockets that the environment speaks of. sd_listen_fds(3): LISTEN_PID must be
// this process, LISTEN_FDS is how many there are, LISTEN_FDNAMES are their names, separated by colons; a
// socket without a name is one for NBD.
func activatedListeners(getenv func(string) string, pid int) (activated, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > 64 {
		return nil, fmt.Errorf("socket activation: LISTEN_FDS is %q", getenv("LISTEN_FDS"))
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	all := activated{}
	for i := range n {
		name := "" // libnbd and systemd-socket-activate(1) give none, and want a server of NBD
		if i < len(names) {
			name = names[i]
		}
		if name == "" || name == "unknown" {
			name = "nbd"
		}
		if name != "nbd" && name != "admin" && name != "http" {
			return nil, fmt.Errorf("socket activation: a socket is named %q; use FileDescriptorName=nbd, admin or http", name)
		}
		l, err := takeListener(firstActivated+i, name)
		if err != nil {
			return nil, fmt.Errorf("socket activation: %s: %w", name, err)
		}
		all[name] = append(all[name], l)
	}
	return all, nil
}

func takeListener(fd int, name string) (net.Listener, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // FileListener has its own copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// addrOf is the address of a listener.
func addrOf(l net.Listener) config.Addr {
	a := l.Addr()
	return config.Addr{Network: a.Network(), Address: a.String()}
}

// notifier tells systemd how the service is (sd_notify(3)); without systemd it does nothing.
type notifier struct {
	socket   string
	watchdog time.Duration // 0 without
}

func newNotifier(getenv func(string) string, pid int) *notifier {
	n := &notifier{socket: getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if who := getenv("WATCHDOG_PID"); err == nil && usec > 0 && (who == "" || who == strconv.Itoa(pid)) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// send sends lines such as READY=1.
func (n *notifier) send(lines ...string) error {
	if n.socket == "" {
		return nil
	}
	// A leading @ is an abstract socket; the net package knows that form.
	c, err := net.Dial("unixgram", n.socket)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// keepAlive sends the watchdog's sign of life as long as alive returns, until ctx ends. alive is to take the locks
// that a stuck server would hold: then the signs stop, and systemd restarts the service.
func (n *notifier) keepAlive(ctx context.Context, alive func()) {
	if n.socket == "" || n.watchdog == 0 {
		return
	}
	tick := time.NewTicker(n.watchdog / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			alive()
			_ = n.send("WATCHDOG=1") // systemd notices a sign that is missing
		}
	}
}
