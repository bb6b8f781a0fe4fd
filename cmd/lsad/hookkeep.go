package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lsad/kvmhook"
)

// Names under which systemd keeps what a VM needs (sd_notify(3), FDSTORE=1 and FDNAME=).
const (
	keptUserfault = "userfault"
	keptState     = "state"
)

// keeper returns what hands descriptors to systemd, which gives them to the service when it starts it again. nil
// without systemd.
func keeper(getenv func(string) string) func(userfault, state int) error {
	socket := getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	return func(userfault, state int) error {
		// The net package sends no descriptors over a connected socket of this kind.
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("systemd: %w", err)
		}
		defer unix.Close(c)
		for _, one := range []struct {
			name string
			fd   int
		}{{keptUserfault, userfault}, {keptState, state}} {
			// It would take a userfaultfd with events for one that has failed, hence FDPOLL=0.
			text := "FDSTORE=1\nFDNAME=" + one.name + "\nFDPOLL=0"
			to := &unix.SockaddrUnix{Name: socket}
			if err := unix.Sendmsg(c, []byte(text), unix.UnixRights(one.fd), to, unix.MSG_NOSIGNAL); err != nil {
				return fmt.Errorf("systemd does not keep the %s: %w", one.name, err)
			}
		}
		return nil
	}
}

// takeKept returns what systemd kept of an earlier hook (sd_listen_fds(3)), nil if that is nothing. The caller closes
// the files if it does not use them.
func takeKept(getenv func(string) string, pid int) (*kvmhook.Kept, error) {
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if getenv("LISTEN_PID") != strconv.Itoa(pid) || err == nil && n == 0 {
		return nil, nil
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	if err != nil || n != 2 || len(names) != n {
		return nil, fmt.Errorf("systemd passes %q descriptors named %q, and not %s and %s", getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), keptUserfault, keptState)
	}
	files := map[string]*os.File{}
	for i, name := range names {
		unix.CloseOnExec(firstActivated + i)
		files[name] = os.NewFile(uintptr(firstActivated+i), name)
	}
	k := &kvmhook.Kept{Userfault: files[keptUserfault], State: files[keptState]}
	if k.Userfault == nil || k.State == nil {
		return nil, fmt.Errorf("systemd passes descriptors named %q, and not %s and %s", names, keptUserfault, keptState)
	}
	return k, nil
}
