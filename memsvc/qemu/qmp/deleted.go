package qmp

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// deleted says whether the file that QEMU has open under this name was deleted since: what is there now is another
// one, such as that of the next VM. QEMU knows the name only, so its process is asked for what it has mapped, if it can
// be found behind the monitor and seen. What is not known is no.
func (c *Client) deleted(name string) bool {
	pid, ok := c.peer()
	if !ok {
		return false
	}
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return false
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(line, " "+name+" (deleted)\n") {
			return true
		}
	}
	return false
}

// peer is the process that listens at the monitor's socket, on this machine.
func (c *Client) peer() (pid int32, ok bool) {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	var who *unix.Ucred
	if raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return 0, false
	}
	return who.Pid, who.Pid > 0
}
