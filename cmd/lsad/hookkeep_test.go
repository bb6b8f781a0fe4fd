package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/vmmtest"
)

// fakeSystemd is the end of a notification socket that keeps descriptors.
type fakeSystemd struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newFakeSystemd(t *testing.T) *fakeSystemd {
	t.Helper()
	s := &fakeSystemd{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	return s
}

// start starts the service, with what was kept of it.
func (s *fakeSystemd) start(dir, args string, kept []*os.File, names string) *process {
	s.t.Helper()
	// The process that systemd starts has its own number in LISTEN_PID.
	cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ exec "+lsadBinary+" "+strings.ReplaceAll(args, "?", `\?`))
	cmd.ExtraFiles = kept
	return launch(s.t, dir, []string{"NOTIFY_SOCKET=" + s.path, fmt.Sprintf("LISTEN_FDS=%d", len(kept)), "LISTEN_FDNAMES=" + names}, cmd)
}

// kept returns the descriptors that a service had kept, and their names, in the order in which they came.
func (s *fakeSystemd) kept() (files []*os.File, names string) {
	s.t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	var all []string
	for len(files) < 2 {
		s.conn.SetReadDeadline(time.Now().Add(hookPatience))
		n, oobn, _, _, err := s.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			s.t.Fatal(err)
		}
		text := string(buf[:n])
		if !strings.HasPrefix(text, "FDSTORE=1\n") || !strings.Contains(text, "\nFDPOLL=0") {
			s.t.Fatalf("the service says %q", text)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			s.t.Fatalf("%d control messages, %v", len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			s.t.Fatalf("%d descriptors, %v", len(fds), err)
		}
		_, name, _ := strings.Cut(text, "FDNAME=")
		name, _, _ = strings.Cut(name, "\n")
		all = append(all, name)
		f := os.NewFile(uintptr(fds[0]), name)
		s.t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files, strings.Join(all, ":")
}

// A hook that systemd keeps descriptors for is killed while threads wait for pages, and started again: the guest goes
// on, and what was removed stays removed.
func TestHookKilled(t *testing.T) {
	raced(t, "TestHookKilledWithServer")
	dir, server := hookRig(t)
	systemd := newFakeSystemd(t)
	args := "hook --socket hook.sock --no-fill --image nbd+unix:///vm1?socket=lsad-data/nbd.sock"
	p := waitHook(t, systemd.start(dir, args, nil, ""), "Waiting for a VMM")
	v := bootVMM(t, dir)
	files, names := systemd.kept()
	touchVMM(t, v, 0, 100)
	if _, err := v.Do(vmmtest.Order{Op: vmmtest.OpRemove, First: 64, Last: 90}, hookPatience); err != nil {
		t.Fatal(err)
	}
	if st := hookStatus(t, dir); !st.Kept || st.RemovedBytes != 26*hookPage {
		t.Errorf("%+v", st)
	}
	server.kill() // so that threads wait
	begun, err := v.Begin(vmmtest.Order{Op: vmmtest.OpTouch, First: 110, Last: hookPages, Threads: 4})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(hookPatience); hookStatus(t, dir).Source.OutageSeconds == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody waits for a page")
		}
	}
	p.kill()
	serveIn(t, dir, again...)
	p = waitHook(t, systemd.start(dir, args, files, names), "Going on with the VM")
	compareVMM(t, v, begun, 110)
	touchVMM(t, v, 0, 64)
	a, err := v.Do(vmmtest.Order{Op: vmmtest.OpTouch, First: 64, Last: 90}, hookPatience)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range a.Hashes {
		if h != vmmtest.Hash(make([]byte, hookPage)) {
			t.Fatalf("page %d was removed, and has content again", 64+i)
		}
	}
	for _, f := range files {
		f.Close()
	}
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
}

func TestTakeKept(t *testing.T) {
	env := func(pid, fds, names string) func(string) string {
		return func(key string) string {
			return map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names}[key]
		}
	}
	for _, e := range []func(string) string{env("", "", ""), env("8", "2", "userfault:state"), env("7", "0", "")} {
		if k, err := takeKept(e, 7); k != nil || err != nil {
			t.Errorf("%v, %v", k, err)
		}
	}
	for _, e := range []func(string) string{env("7", "1", "state"), env("7", "x", ""), env("7", "3", "userfault:state:nbd")} {
		if k, err := takeKept(e, 7); k != nil || err == nil {
			t.Errorf("%v, %v", k, err)
		}
	}
}
