package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/nbdclient"
	"lsad/kvmhook"
	"lsad/kvmhook/filesource"
	"lsad/kvmhook/vmmtest"
	"lsad/server/admin"
)

func init() { vmmtest.Main() } // this process may be a test's VMM

const (
	hookPages    = 1024
	hookPage     = 4096
	hookPatience = patience
)

// hookMemory is a VM's memory: of 48 pages, the first 16 are zeros.
func hookMemory() []byte {
	p := make([]byte, hookPages*hookPage)
	for i := 0; i < len(p); i += 8 {
		if i/hookPage/16%3 != 0 {
			binary.LittleEndian.PutUint64(p[i:], uint64(i)<<8|1)
		}
	}
	return p
}

// hookRig is a server with an image of hookMemory, "vm1", and the file that it was made from.
func hookRig(t *testing.T) (dir string, server *process) {
	t.Helper()
	needUserfaultfd(t)
	dir = t.TempDir()
	server = serveIn(t, dir, small...)
	if err := os.WriteFile(filepath.Join(dir, "memory"), hookMemory(), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "image", "import", "vm1", "memory", "--paused")
	return dir, server
}

// startHook starts lsad hook and waits until it listens.
func startHook(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(lsadBinary, append([]string{"hook", "--socket", "hook.sock"}, args...)...)
	return waitHook(t, launch(t, dir, []string{"NOTIFY_SOCKET="}, cmd), "Waiting for a VMM")
}

func waitHook(t *testing.T, p *process, says string) *process {
	t.Helper()
	for end := time.Now().Add(hookPatience); !strings.Contains(p.stdout(), says); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.done:
			t.Fatalf("lsad hook ended: %s", p.stderr())
		default:
		}
		if time.Now().After(end) {
			t.Fatal("lsad hook does not listen")
		}
	}
	return p
}

// bootVMM starts a VMM whose memory the hook serves.
func bootVMM(t *testing.T, dir string) *vmmtest.Process {
	t.Helper()
	v, err := vmmtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Kill)
	_, err = v.Do(vmmtest.Order{
		Op: vmmtest.OpMap, Socket: filepath.Join(dir, "hook.sock"), Version: 3,
		Regions: []vmmtest.Region{{Size: hookPages * hookPage, Page: hookPage}},
	}, hookPatience)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// touchVMM has pages touched and compares them.
func touchVMM(t *testing.T, v *vmmtest.Process, first, last int) {
	t.Helper()
	begun, err := v.Begin(vmmtest.Order{Op: vmmtest.OpTouch, First: first, Last: last, Threads: 4})
	if err != nil {
		t.Fatal(err)
	}
	compareVMM(t, v, begun, first)
}

func compareVMM(t *testing.T, v *vmmtest.Process, begun <-chan vmmtest.Answer, first int) {
	t.Helper()
	a, err := v.Await(begun, hookPatience)
	if err != nil {
		t.Fatal(err)
	}
	want := hookMemory()
	for i, h := range a.Hashes {
		if h != vmmtest.Hash(want[(first+i)*hookPage:][:hookPage]) {
			t.Fatalf("page %d: wrong content", first+i)
		}
	}
}

func hookStatus(t *testing.T, dir string) kvmhook.Status {
	t.Helper()
	return mustJSON[kvmhook.Status](t, dir, "hook", "status", "--socket", "hook.sock")
}

// ends waits until the hook has ended by itself and returns its exit code.
func (p *process) ends() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(hookPatience):
		p.t.Fatalf("lsad hook does not end:\n%s", p.stderr())
	}
	return p.cmd.ProcessState.ExitCode()
}

// A VM is restored from an image by name, its working set recorded, and used by the next restore.
func TestHook(t *testing.T) {
	dir, _ := hookRig(t)
	p := startHook(t, dir, "--image", "vm1", "--record")
	if st := hookStatus(t, dir); st.State != kvmhook.StateWaiting {
		t.Errorf("%+v", st)
	}
	v := bootVMM(t, dir)
	touchVMM(t, v, 500, 600)
	touchVMM(t, v, 16, 80)
	st := hookStatus(t, dir)
	if st.State != kvmhook.StateServing || st.FetchedFaults == 0 || st.FilledBytes != 0 || st.Source.Name != "vm1" {
		t.Errorf("%+v", st)
	}
	if text := must(t, dir, "hook", "status", "--socket", "hook.sock"); !strings.Contains(text, "serving") || !strings.Contains(text, "Resident:") {
		t.Errorf("status:\n%s", text)
	}
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
	recorded := mustJSON[admin.Image](t, dir, "image", "show", "vm1").WorkingSet
	if recorded.Count == 0 || recorded.ChunkBytes != 64<<10 {
		t.Errorf("recorded %+v", recorded)
	}

	p = startHook(t, dir, "--image", "vm1")
	v = bootVMM(t, dir)
	for end := time.Now().Add(hookPatience); hookStatus(t, dir).State != kvmhook.StateFilled; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the memory is never resident")
		}
	}
	touchVMM(t, v, 0, hookPages)
	if st := hookStatus(t, dir); st.FetchedFaults != 0 || st.ResidentPercent != 100 || st.NotTransferredBytes < hookPages*hookPage/4 {
		t.Errorf("%+v", st)
	}
	if text := hookMetrics(t, dir); !strings.Contains(text, "lsad_hook_serving 1") || !strings.Contains(text, "lsad_hook_fault_latency_seconds_count") {
		t.Errorf("metrics: %.500s", text)
	}
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
}

func hookMetrics(t *testing.T, dir string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "hook.sock.status"))
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://hook/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A fork is served as long as nobody else can write it.
func TestHookFork(t *testing.T) {
	raced(t, "TestHook")
	dir, _ := hookRig(t)
	must(t, dir, "image", "fork", "vm1", "fork1")
	c, err := nbdclient.Target{Network: "unix", Address: filepath.Join(dir, "lsad-data", "nbd.sock"), Export: "fork1"}.Dial(t.Context(), nbdclient.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r := lsad(t, dir, "hook", "--socket", "hook.sock", "--image", "fork1"); r.code != exitFailed || !strings.Contains(r.stderr, "may write") {
		t.Errorf("a fork that others have open: exit code %d: %s", r.code, r.stderr)
	}
	c.Close()
	for end := time.Now().Add(hookPatience); len(mustJSON[admin.Image](t, dir, "image", "show", "fork1").Clients) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the client is never gone")
		}
	}
	p := startHook(t, dir, "--image", "fork1", "--record")
	v := bootVMM(t, dir)
	touchVMM(t, v, 0, hookPages)
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
	if set := mustJSON[admin.Image](t, dir, "image", "show", "fork1").WorkingSet; set.Count == 0 {
		t.Error("nothing was recorded")
	}
}

// What the server on this machine told of an image is read from its devices, also while it is away, and when another
// one was started.
func TestHookDirect(t *testing.T) {
	raced(t, "TestHook")
	dir, server := hookRig(t)
	p := startHook(t, dir, "--image", "vm1", "--no-fill", "--source-timeout", "1m")
	v := bootVMM(t, dir)
	touched := 16
	needReadNow(t, filepath.Join(dir, "memory"))
	for ; hookStatus(t, dir).Source.DirectBytes == 0; touched++ {
		if touched == hookPages/2 {
			t.Fatal("nothing is read past the server")
		}
		touchVMM(t, v, touched, touched+1)
	}
	server.kill()
	touchVMM(t, v, touched, 700)
	before := hookStatus(t, dir)
	if before.Source.OutageSeconds != 0 {
		t.Errorf("the guest waited for a server that it did not need: %+v", before.Source)
	}
	serveIn(t, dir, again...)
	touchVMM(t, v, 0, hookPages)
	if st := hookStatus(t, dir); st.ResidentPercent != 100 {
		t.Errorf("%+v", st)
	}
	if text := hookMetrics(t, dir); !regexp.MustCompile(`(?m)^lsad_hook_source_direct_bytes_total [1-9]`).MatchString(text) {
		t.Errorf("metrics: %s", text)
	}
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
}

// needReadNow skips a test where the file system cannot say that a read takes no wait.
func needReadNow(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT); err == unix.EOPNOTSUPP {
		t.Skip("the file system of the temporary directory cannot say that a read takes no wait (RWF_NOWAIT)")
	}
}

// The server is killed while the VM runs, and started again: the guest waits, and goes on.
func TestHookServerKilled(t *testing.T) {
	dir, server := hookRig(t)
	p := startHook(t, dir, "--image", "nbd+unix:///vm1?socket=lsad-data/nbd.sock", "--no-fill", "--source-timeout", "1m")
	v := bootVMM(t, dir)
	touchVMM(t, v, 0, 100)
	server.kill()
	begun, err := v.Begin(vmmtest.Order{Op: vmmtest.OpTouch, First: 100, Last: hookPages, Threads: 4})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(hookPatience); hookStatus(t, dir).Source.OutageSeconds == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the outage went unnoticed")
		}
	}
	serveIn(t, dir, again...)
	compareVMM(t, v, begun, 100)
	if st := hookStatus(t, dir); st.Source.Reconnects == 0 {
		t.Errorf("%+v", st)
	}
	v.Kill()
	if code := p.ends(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.stderr())
	}
}

// A source that stays away for too long ends the hook, which says what that means.
func TestHookSourceTimeout(t *testing.T) {
	raced(t, "TestHookServerKilled")
	dir, server := hookRig(t)
	p := startHook(t, dir, "--image", "nbd+unix:///vm1?socket=lsad-data/nbd.sock", "--no-fill", "--source-timeout", "200ms")
	v := bootVMM(t, dir)
	server.kill()
	if _, err := v.Begin(vmmtest.Order{Op: vmmtest.OpTouch, First: 20, Last: 21}); err != nil {
		t.Fatal(err)
	}
	if code := p.ends(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if log := p.stderr(); !strings.Contains(log, "out of reach for") || !strings.Contains(log, "restore it again") {
		t.Errorf("it said:\n%s", log)
	}
}

// Interrupted, the hook ends at once, and says so if a VM needed it.
func TestHookInterrupted(t *testing.T) {
	raced(t, "TestHook")
	dir, _ := hookRig(t)
	p := startHook(t, dir, "--image", "vm1")
	p.stop()
	p = startHook(t, dir, "--image", "vm1")
	v := bootVMM(t, dir)
	touchVMM(t, v, 20, 21) // it is being served then
	p.cmd.Process.Signal(unix.SIGTERM)
	if code := p.ends(); code != exitFailed || !strings.Contains(p.stderr(), "stopped while the VM lives") {
		t.Errorf("exit code %d:\n%s", code, p.stderr())
	}
	if _, err := os.Stat(filepath.Join(dir, "hook.sock")); err == nil {
		t.Error("it left its socket behind")
	}
}

// Other sources: an NBD URI and a file, each with a working set in a file.
func TestHookSources(t *testing.T) {
	dir, _ := hookRig(t)
	for _, image := range []string{"nbd+unix:///vm1?socket=lsad-data/nbd.sock", "file:memory"} {
		order := filepath.Join(t.TempDir(), "order.json")
		p := startHook(t, dir, "--image", image, "--record", "--working-set", order)
		v := bootVMM(t, dir)
		touchVMM(t, v, 300, 400)
		v.Kill()
		if code := p.ends(); code != 0 {
			t.Fatalf("%s: exit code %d:\n%s", image, code, p.stderr())
		}
		text, err := os.ReadFile(order)
		if err != nil || !bytes.Contains(text, []byte(`"chunks":[`)) {
			t.Fatalf("%s: recorded %s, %v", image, text, err)
		}
		p = startHook(t, dir, "--image", image, "--working-set", order)
		v = bootVMM(t, dir)
		touchVMM(t, v, 0, hookPages)
		v.Kill()
		if code := p.ends(); code != 0 {
			t.Fatalf("%s: exit code %d:\n%s", image, code, p.stderr())
		}
	}
}

func TestHookUsage(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	tests := []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "--socket is missing"},
		{[]string{"--socket", "s"}, exitUsage, "--image is missing"},
		{[]string{"--socket", "s", "--image", "nbd:///x"}, exitUsage, "want nbd://HOST"},
		{[]string{"--socket", "s", "--image", "nbd://h/x", "--record"}, exitUsage, "--working-set FILE"},
		{[]string{"--socket", "s", "--image", "x", "--connections", "0"}, exitUsage, "1 to 64"},
		{[]string{"--socket", strings.Repeat("s", 105), "--image", "x"}, exitUsage, "a socket's path"},
		{[]string{"--socket", "s", "--image", "x"}, exitFailed, "start it with"},
		{[]string{"--socket", "s", "--image", "nbd+unix:///x?socket=none"}, exitFailed, "no such file"},
		{[]string{"--socket", "s", "--image", "file:none"}, exitFailed, "no such file"},
		{[]string{"status"}, exitUsage, "--socket is missing"},
		{[]string{"status", "--socket", "none"}, exitFailed, "none.status: dial unix none.status: connect: no such file or directory; is it running?"},
	}
	for _, test := range tests {
		r := lsad(t, dir, append([]string{"hook"}, test.args...)...)
		if r.code != test.code || !strings.Contains(r.stderr, test.want) {
			t.Errorf("lsad hook %v: exit code %d: %s; want %d with %q", test.args, r.code, r.stderr, test.code, test.want)
		}
	}
}

// The command lines of the page exist, and so do the metrics that it names.
func TestHookDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/HOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^ {4,}(lsad .*)$`).FindAllStringSubmatch(string(page), -1) {
		checkExample(t, strings.Fields(m[1])[1:])
		found++
	}
	if found < 6 {
		t.Errorf("only %d commands found", found)
	}
	ram := filepath.Join(t.TempDir(), "ram")
	if err := os.WriteFile(ram, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := filesource.Open(ram)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	h, err := kvmhook.New(t.Context(), kvmhook.Options{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	out := httptest.NewRecorder()
	kvmhook.Handler(h.Status).ServeHTTP(out, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, name := range regexp.MustCompile("`(lsad_hook_[a-z_]+)").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(out.Body.String(), "# TYPE "+name[1]+" ") {
			t.Errorf("there is no metric %s", name[1])
		}
	}
}
