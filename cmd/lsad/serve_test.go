package main

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/server/admin"
)

// TestDefaults runs lsad serve without an argument but the port, which other tests may use, and then every command
// that it prints.
func TestDefaults(t *testing.T) {
	needTool(t, "nbdinfo", "nbdcopy", "qemu-img", "curl")
	dir := t.TempDir()
	p := serveIn(t, dir, "--http=127.0.0.1:0")
	for name, mode := range map[string]fs.FileMode{
		"": 0o700 | fs.ModeDir, "nbd.sock": 0o600 | fs.ModeSocket, "admin.sock": 0o600 | fs.ModeSocket,
		"dev0": 0o600, "dev3": 0o600, "array.toml": 0o600, "meta": 0o700 | fs.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(dir, "lsad-data", name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("lsad-data/%s has mode %v, want %v", name, info.Mode(), mode)
		}
		if strings.HasPrefix(name, "dev") && info.Size() != 4<<30 {
			t.Errorf("lsad-data/%s has %d bytes", name, info.Size())
		}
	}
	v := mustJSON[admin.Volume](t, dir, "volume", "show", "vol0")
	if v.SizeBytes != 10<<30 {
		t.Errorf("vol0 has %d bytes", v.SizeBytes)
	}
	for _, command := range printedCommands(t, p.stdout()) {
		if strings.HasPrefix(command, "sudo nbd-client") {
			continue // needs the kernel's driver; tools/guest runs it
		}
		out := mustSh(t, dir, command)
		if out == "" && !strings.HasPrefix(command, "nbdcopy") {
			t.Errorf("%s: no output", command)
		}
	}
	if all := mustJSON[[]admin.Volume](t, dir, "volume", "list"); len(all) != 2 {
		t.Errorf("the printed command made no volume: %+v", all)
	}
	p.stop()
	for _, name := range []string{"nbd.sock", "admin.sock"} {
		if _, err := os.Lstat(filepath.Join(dir, "lsad-data", name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there after the stop", name)
		}
	}
}

// printedCommands are the lines that serve prints after Try.
func printedCommands(t *testing.T, out string) []string {
	t.Helper()
	_, after, ok := strings.Cut(out, "Try:\n")
	if !ok {
		t.Fatalf("no commands in %q", out)
	}
	var all []string
	for line := range strings.Lines(after) {
		all = append(all, strings.TrimSpace(line))
	}
	if len(all) < 6 {
		t.Fatalf("only %d commands in %q", len(all), out)
	}
	return all
}

// TestKill9 writes with real clients, kills the server, and finds everything again.
func TestKill9(t *testing.T) {
	needTool(t, "nbdcopy", "qemu-io", "cmp")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	mustSh(t, dir, "head -c 50000000 /dev/urandom > in && nbdcopy in "+uri("vol0"))
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 7 60001234 4321' -c 'write -z 61M 1M' -c 'discard 1M 1M' "+uri("vol0"))
	must(t, dir, "volume", "snapshot", "vol0@before")
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 9 0 1M' "+uri("vol0"))
	p.kill()

	p = serveIn(t, dir, again...)
	if s := p.status(); s.Recovery.Clean || s.Recovery.Records == 0 || len(s.Recovery.Steps) == 0 {
		t.Errorf("recovery: %+v", s.Recovery)
	}
	// -n: what lies beyond the image is not compared. The image differs where the test discarded.
	mustSh(t, dir, "head -c 1048576 in > first && nbdcopy "+uri("vol0@before")+" out && cmp -n 1048576 first out && cmp -i 2097152 -n 47902848 in out")
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 9 0 1M' -c 'read -P 0 1M 1M' -c 'read -P 7 60001234 4321' -c 'read -P 0 61M 1M' "+uri("vol0"))
	p.stop()
	p = serveIn(t, dir, again...)
	if s := p.status(); !s.Recovery.Clean {
		t.Errorf("after a clean stop: %+v", s.Recovery)
	}
	p.stop()
}

func TestVolumeLife(t *testing.T) {
	needTool(t, "nbdinfo", "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	v := mustJSON[admin.Volume](t, dir, "volume", "create", "web", "16MiB")
	if v.Name != "web" || v.SizeBytes != 16<<20 || v.Created.IsZero() {
		t.Errorf("created %+v", v)
	}
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 1 0 1M' "+uri("web"))
	must(t, dir, "volume", "snapshot", "web@monday")
	if s := mustJSON[admin.Snapshot](t, dir, "volume", "show", "web@monday"); s.Name != "monday" || s.SizeBytes == 0 {
		t.Errorf("a snapshot: %+v", s)
	}
	if r := lsad(t, dir, "volume", "show", "web@tuesday"); r.code != 1 || !strings.Contains(r.stderr, `has no snapshot "tuesday"`) {
		t.Errorf("no such snapshot: %+v", r)
	}
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 2 0 64k' "+uri("web"))
	if v := mustJSON[admin.Volume](t, dir, "volume", "clone", "web@monday", "test"); v.Origin != "web@monday" {
		t.Errorf("clone %+v", v)
	}
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 1 0 1M' "+uri("test"))
	if out := mustSh(t, dir, "nbdinfo "+uri("web@monday")); !strings.Contains(out, "is_read_only: true") {
		t.Errorf("a snapshot is not exported read-only:\n%s", out)
	}
	if v := mustJSON[admin.Volume](t, dir, "volume", "resize", "web", "32MiB"); v.SizeBytes != 32<<20 {
		t.Errorf("resized %+v", v)
	}
	must(t, dir, "volume", "rename", "test", "prod")
	list := must(t, dir, "volume", "list")
	checkColumns(t, list)
	for _, want := range []string{"prod ", "web ", "web@monday ", "32.0 MiB", "1.0 MiB", "64.0 KiB"} {
		if !strings.Contains(list, want) {
			t.Errorf("volume list without %q:\n%s", want, list)
		}
	}
	must(t, dir, "volume", "revert", "web@monday")
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 1 0 1M' "+uri("web"))
	must(t, dir, "volume", "delete", "web@monday")
	must(t, dir, "volume", "delete", "web")
	all := mustJSON[[]admin.Volume](t, dir, "volume", "list")
	if len(all) != 2 || all[0].Name != "prod" || all[1].Name != "vol0" {
		t.Errorf("at the end there are %+v", all)
	}
	p.stop()
}

// checkColumns fails unless the second column of a table begins at the same place in every line.
func checkColumns(t *testing.T, out string) {
	t.Helper()
	column := regexp.MustCompile(`^\S+ +`)
	at := -1
	for line := range strings.Lines(out) {
		n := len(column.FindString(line))
		if at >= 0 && n != at {
			t.Errorf("columns do not line up:\n%s", out)
			return
		}
		at = n
	}
}

func TestDefaultExport(t *testing.T) {
	needTool(t, "nbdinfo")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	mustSh(t, dir, "nbdinfo --size "+uri(""))
	must(t, dir, "volume", "create", "other", "1MiB")
	if out, err := sh(t, dir, "nbdinfo --size "+uri("")); err != nil || strings.TrimSpace(out) != "134217728" {
		t.Errorf("the first volume named is not the default export: %s %v", out, err)
	}
	p.stop()
	p = serveIn(t, dir, append(again, "--volume=other:1MiB")...)
	if out, err := sh(t, dir, "nbdinfo --size "+uri("")); err != nil || strings.TrimSpace(out) != "1048576" {
		t.Errorf("the volume named is not the default export: %s %v", out, err)
	}
	if out := mustSh(t, dir, "nbdinfo --list "+uri("")); !strings.Contains(out, `export="vol0"`) || !strings.Contains(out, `export="other"`) {
		t.Errorf("list: %s", out)
	}
	p.stop()
}

func TestInUseNamesTheClient(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	c := openExport(t, filepath.Join(dir, "lsad-data", "nbd.sock"), "vol0")
	want := "unix:pid=" + strconv.Itoa(os.Getpid())
	for _, change := range [][]string{{"delete", "vol0"}, {"resize", "vol0", "1MiB", "--force"}} {
		if r := lsad(t, dir, append([]string{"volume"}, change...)...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%v of a volume in use: %+v, want one that names %s", change, r, want)
		}
	}
	conns := mustJSON[[]admin.Connection](t, dir, "status", "--connections")
	if len(conns) != 1 || conns[0].Export != "vol0" || !strings.HasPrefix(conns[0].Client, want) {
		t.Errorf("connections: %+v", conns)
	}
	checkColumns(t, must(t, dir, "status", "--connections"))
	c.Close()
	p.stop()
}

// TestVanished deletes a volume whose client goes at that moment: the end of its connection is waited for.
func TestVanished(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	c := openExport(t, filepath.Join(dir, "lsad-data", "nbd.sock"), "vol0")
	time.AfterFunc(300*time.Millisecond, func() { c.Close() })
	must(t, dir, "volume", "delete", "vol0")
	p.stop()
}

// openExport negotiates as the simplest of clients does (newstyle, EXPORT_NAME) and keeps the export open.
func openExport(t *testing.T, socket, name string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	greeting := make([]byte, 18)
	if _, err := io.ReadFull(c, greeting); err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	option := be.AppendUint32(nil, 1|2) // fixed newstyle, no zeroes
	option = append(option, "IHAVEOPT"...)
	option = be.AppendUint32(be.AppendUint32(option, 1), uint32(len(name)))
	if _, err := c.Write(append(option, name...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil { // size and flags
		t.Fatal(err)
	}
	return c
}

func TestMetricsOverHTTP(t *testing.T) {
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	mustSh(t, dir, "qemu-io -f raw -c 'write 0 64k' -c flush "+uri("vol0"))
	base := "http://" + p.status().Listen.HTTP[0]
	body := get(t, base+"/metrics")
	for _, want := range []string{
		`lsad_io_bytes_total{operation="write",volume="vol0"} 65536`,
		`lsad_io_requests_total{operation="flush",volume="vol0"} `,
		`lsad_log_bytes_total{kind="user"} 65536`,
		`lsad_device_segments{device="lsad-data/d0",slot="0",state="unused"}`,
		`lsad_nbd_connections_accepted_total 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if body := get(t, base+"/healthz"); body != "ok\n" {
		t.Errorf("/healthz: %q", body)
	}
	r, err := http.Post(base+"/v1/volumes", "application/json", strings.NewReader(`{"name":"x","size_bytes":4096}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusForbidden {
		t.Errorf("a change over TCP without a token: %s", r.Status)
	}
	p.stop()
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", url, r.Status, err)
	}
	return string(body)
}

func TestAdminOverHTTPWithToken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("a-token-of-this-test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serveIn(t, dir, append(small, "--http-token=@token")...)
	addr := p.status().Listen.HTTP[0]
	must(t, dir, "volume", "list", "--admin", addr)
	must(t, dir, "volume", "create", "x", "1MiB", "--admin", addr, "--http-token", "@token")
	if r := lsad(t, dir, "volume", "delete", "x", "--admin", addr); r.code != 1 || !strings.Contains(r.stderr, "token") {
		t.Errorf("a change without the token: %+v", r)
	}
	p.stop()
}

func TestPrintConfigRoundTrip(t *testing.T) {
	dir := t.TempDir()
	first := must(t, dir, append([]string{"serve", "--print-config", "--nbd=unix:a.sock", "--log-level=debug"}, small...)...)
	if err := os.WriteFile(filepath.Join(dir, "lsad.toml"), []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	if second := must(t, dir, "serve", "--print-config", "--config=lsad.toml"); second != first {
		t.Errorf("printed\n%s\nread back and printed\n%s", first, second)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("--print-config made something: %v %v", entries, err)
	}
	// The printed file serves, and once there is an array it says the same of that.
	p := serveIn(t, dir, "--config=lsad.toml")
	p.stop()
	serveIn(t, dir, "--config=lsad.toml").stop()
	third := must(t, dir, "serve", "--print-config")
	if !strings.Contains(third, `device = ["lsad-data/d0", "lsad-data/d1", "lsad-data/d2"]`) {
		t.Errorf("the devices of the array are not in\n%s", third)
	}
}

func TestTwoServersOneDir(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	r := lsad(t, dir, append([]string{"serve"}, again...)...)
	want := "in use by another lsad (process " + strconv.Itoa(p.cmd.Process.Pid) + ")"
	if r.code != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("second server: %+v, want %q", r, want)
	}
	must(t, dir, "volume", "list") // the first goes on
	// The devices are locked as well: another directory does not get them.
	r = lsad(t, dir, "serve", "--dir=elsewhere", "--http=none", "--device=lsad-data/d0")
	if r.code != 1 || !strings.Contains(r.stderr, "in use by another process") {
		t.Errorf("second server on the same device: %+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); !os.IsNotExist(err) {
		t.Errorf("a failed start left its directory: %v", err)
	}
	p.stop()
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	must(t, dir, "volume", "create", "kept", "1MiB")
	for range 2 {
		p.cmd.Process.Signal(unix.SIGINT)
	}
	<-p.done
	p = serveIn(t, dir, again...)
	must(t, dir, "volume", "show", "kept")
	p.stop()
}

// TestCutShortCreation begins again where a creation was killed half-way.
func TestCutShortCreation(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "lsad-data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	d := &dataDir{path: data}
	paths := []string{d.file("d0"), d.file("d1"), d.file("d2")}
	if err := d.writeMembers(&members{Devices: paths, Creating: true, Made: paths[:2]}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"d0", "meta/x"} {
		os.MkdirAll(filepath.Dir(d.file(path)), 0o700)
		if err := os.WriteFile(d.file(path), []byte("half done"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := serveIn(t, dir, small...)
	must(t, dir, "volume", "show", "vol0")
	p.stop()
	m, err := d.readMembers()
	if err != nil || m.Creating || len(m.Devices) != 3 {
		t.Errorf("members %+v %v", m, err)
	}
}

// TestMovedDataDir opens an array whose directory was renamed.
func TestMovedDataDir(t *testing.T) {
	dir := t.TempDir()
	serveIn(t, dir, small...).stop()
	if err := os.Rename(filepath.Join(dir, "lsad-data"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	p := serveIn(t, dir, append(again, "--dir=moved")...)
	must(t, dir, "volume", "show", "vol0", "--dir=moved")
	p.stop()
}

func TestGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files to a group of one's choice takes root")
	}
	dir := t.TempDir()
	p := serveIn(t, dir, append(small, "--group=12345")...)
	for name, mode := range map[string]fs.FileMode{"": 0o750 | fs.ModeDir, "nbd.sock": 0o660 | fs.ModeSocket, "admin.sock": 0o660 | fs.ModeSocket, "d0": 0o600} {
		var st unix.Stat_t
		path := filepath.Join(dir, "lsad-data", name)
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		info, _ := os.Stat(path)
		if info.Mode() != mode || name != "d0" && st.Gid != 12345 {
			t.Errorf("%s has mode %v and group %d, want %v", name, info.Mode(), st.Gid, mode)
		}
	}
	p.stop()
	p = serveIn(t, dir, again...)
	if info, err := os.Stat(filepath.Join(dir, "lsad-data")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("without --group the directory has mode %v %v", info.Mode(), err)
	}
	p.stop()
}

// TestGroupFirstStart holds that a directory that was there before the first start is the group's, or private, at once.
func TestGroupFirstStart(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files to a group of one's choice takes root")
	}
	for _, tt := range []struct {
		before, after fs.FileMode
		gid           int
	}{{0o700, 0o750, 12345}, {0o755, 0o750, 12345}, {0o755, 0o700, -1}} {
		dir := t.TempDir()
		data := filepath.Join(dir, "lsad-data")
		if err := errors.Join(os.Mkdir(data, tt.before), os.Chmod(data, tt.before)); err != nil {
			t.Fatal(err)
		}
		args := small
		if tt.gid >= 0 {
			args = append(slices.Clone(small), "--group=12345")
		}
		p := serveIn(t, dir, args...)
		var st unix.Stat_t
		if err := unix.Stat(data, &st); err != nil {
			t.Fatal(err)
		}
		if mode := fs.FileMode(st.Mode).Perm(); mode != tt.after || tt.gid >= 0 && int(st.Gid) != tt.gid {
			t.Errorf("with group %d a directory of mode %o has %o and group %d, want %o", tt.gid, tt.before, mode, st.Gid, tt.after)
		}
		p.stop()
	}
}

func TestGCThroughTheCommand(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	checkColumns(t, must(t, dir, "gc", "status"))
	must(t, dir, "gc", "run")
	must(t, dir, "gc", "run", "d1")
	if r := lsad(t, dir, "gc", "run", "d9"); r.code != 1 || !strings.Contains(r.stderr, "no such device") {
		t.Errorf("gc run of an unknown device: %+v", r)
	}
	must(t, dir, "gc", "set", "--period=30s", "--low=5")
	must(t, dir, "gc", "set", "d1", "--low=6", "--phase=0.5")
	for _, bad := range [][]string{{"--low=0"}, {"--period=0s"}, {"--mode=often"}, {"--alt-low=1"}, {"d1", "--phase=1.5"}, {"d1", "--mode=timed"}, {"--phase=0.5"}} {
		if r := lsad(t, dir, append([]string{"gc", "set"}, bad...)...); r.code != 1 || r.stderr == "" {
			t.Errorf("gc set %v: %+v", bad, r)
		}
	}
	p.stop()
	p = serveIn(t, dir, again...)
	all := mustJSON[[]admin.GCDevice](t, dir, "gc", "status")
	if len(all) != 3 || all[0].Low != 5 || all[1].Low != 6 || all[1].Phase != 0.5 || all[0].PeriodSeconds != 30 {
		t.Errorf("after a restart: %+v", all)
	}
	p.stop()
}
