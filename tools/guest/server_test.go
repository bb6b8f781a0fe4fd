package guest_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// serverFlag chooses the server under test. The other servers show whether a
// failure is lsad's or the harness's.
var serverFlag = flag.String("server", "lsad", "NBD server to test: lsad, nbdkit or qemu-nbd")

// volumeSize is the size of the volume under test: what lsad makes unasked.
const volumeSize = 10 << 30

// nbdServer is an NBD server on the host with a volume vol0 of volumeSize.
type nbdServer struct {
	t    *testing.T
	kind string
	dir  string // everything that it stores
	port int
	argv []string
	cmd  *exec.Cmd
	log  string
}

// newServer prepares a server without starting it. The flags are for lsad.
func newServer(t *testing.T, kind string, flags ...string) *nbdServer {
	t.Helper()
	s := &nbdServer{t: t, kind: kind, dir: filepath.Join(t.TempDir(), "data"), port: freePort(t)}
	s.log = filepath.Join(t.TempDir(), "server.log")
	port, image := strconv.Itoa(s.port), filepath.Join(s.dir, "image")
	switch s.kind {
	case "lsad":
		s.argv = append([]string{build(t, "lsad/cmd/lsad"), "serve", "--dir", s.dir,
			"--nbd", "127.0.0.1:" + port, "--http", "none"}, flags...)
	case "nbdkit":
		s.argv = []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "file", image}
	case "qemu-nbd":
		s.argv = []string{"qemu-nbd", "-f", "raw", "--discard=unmap", "-b", "127.0.0.1", "-p", port,
			"-x", "vol0", "-t", "-e", "8", image}
	case "go-nbd":
		s.argv = []string{buildTool(t, "gonbd"), "serve", "127.0.0.1:" + port, image}
	default:
		t.Fatalf("no server is called %q", s.kind)
	}
	if s.kind != "lsad" {
		makeImage(t, image)
	}
	return s
}

// startServer prepares a server and starts it.
func startServer(t *testing.T, kind string, flags ...string) *nbdServer {
	t.Helper()
	s := newServer(t, kind, flags...)
	s.start()
	return s
}

// buildTool builds one of the programs beside this package.
func buildTool(t *testing.T, name string) string {
	t.Helper()
	return build(t, "lsad/tools/guest/"+name)
}

func makeImage(t *testing.T, image string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(image), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, volumeSize); err != nil {
		t.Fatal(err)
	}
}

// nextPort numbers the ports that this process asks for.
var nextPort atomic.Int32

// freePort returns a TCP port of the loopback interface that nobody listens on
// just now. It is below the ports that kernels give to connections and to
// listeners that name none, which would take it before the server does, or
// while the server is down; where to begin depends on the process, so that two
// of them hardly meet.
func freePort(t *testing.T) int {
	t.Helper()
	const lowest, number = 15000, 15000
	for range number {
		port := lowest + (os.Getpid()*64+int(nextPort.Add(1)))%number
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// start starts the server and waits until it accepts connections.
func (s *nbdServer) start() {
	s.t.Helper()
	if _, err := exec.LookPath(s.argv[0]); err != nil {
		s.t.Skipf("the server %s is not installed", s.kind)
	}
	logFile, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer logFile.Close()
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.kill)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen: %v; its log:\n%s", s.kind, err, s.logged())
		}
	}
}

// kill ends the server at once.
func (s *nbdServer) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself, which Wait then tells
	err := s.cmd.Wait()
	if ws, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		s.t.Errorf("%s ended by itself: %v", s.kind, err)
	}
	s.cmd = nil
	if s.t.Failed() {
		s.t.Logf("log of %s:\n%s", s.kind, s.logged())
	}
}

func (s *nbdServer) logged() string {
	raw, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-64<<10):])
}

// used returns the bytes that the server's files occupy on the host.
func (s *nbdServer) used() int64 {
	s.t.Helper()
	var blocks int64
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return err
		}
		blocks += st.Blocks
		return nil
	})
	if err != nil && !os.IsNotExist(err) { // files may go while we look
		s.t.Fatal(err)
	}
	return blocks * 512
}

// mapped returns the bytes of the volume that lsad says are in use.
func (s *nbdServer) mapped() int64 {
	s.t.Helper()
	out, err := exec.Command(s.argv[0], "volume", "list", "--dir", s.dir, "--json").Output()
	if err != nil {
		s.t.Fatalf("lsad volume list: %v", err)
	}
	var volumes []struct {
		Name   string `json:"name"`
		Mapped int64  `json:"mapped_bytes"`
	}
	if err := json.Unmarshal(out, &volumes); err != nil || len(volumes) != 1 || volumes[0].Name != "vol0" {
		s.t.Fatalf("lsad volume list: %v: %s", err, out)
	}
	return volumes[0].Mapped
}
