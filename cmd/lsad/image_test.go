package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/memsvc"
	"lsad/server/admin"
)

// makeRAM makes a sparse file of 8 MiB with data in its second and seventh, and zeros in its fourth.
func makeRAM(t *testing.T, path string, seed uint64) {
	t.Helper()
	data := make([]byte, 8<<20)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, at := range []int{1, 6} {
		for i := at << 20; i < (at+1)<<20; i++ {
			data[i] = byte(r.Uint32() | 1)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1, 3, 6} {
		if _, err := f.WriteAt(data[at<<20:(at+1)<<20], at<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestImageLife(t *testing.T) {
	needTool(t, "nbdinfo", "nbdcopy", "qemu-io", "cmp")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	makeRAM(t, filepath.Join(dir, "ram"), 1)
	mustSh(t, dir, "head -c 5001 /dev/urandom > state && qemu-io -f raw -c 'write -P 1 0 1M' "+uri("vol0"))
	i := mustJSON[admin.Image](t, dir, "image", "import", "vm", "ram", "--state", "state", "--with-volume", "vol0", "--paused")
	want := admin.ImagePages{Total: 2048, InUse: 512, Zero: 1536}
	if i.Pages != want || i.StateBytes != 5001 || i.RAMBytes != 8<<20 || i.FreeElided || i.Why == "" || len(i.Volumes) != 1 || len(i.Steps) < 4 {
		t.Errorf("imported %+v", i)
	}
	if i.StoredBytes != 2<<20+8192 {
		t.Errorf("it takes %d bytes", i.StoredBytes)
	}
	snapshot := "vol0@" + i.Volumes[0].Snapshot

	// Over NBD: the RAM alone, read-only, with its holes.
	out := mustSh(t, dir, "nbdinfo "+uri("vm"))
	if !strings.Contains(out, "export-size: 8388608") || !strings.Contains(out, "is_read_only: true") {
		t.Errorf("the export is\n%s", out)
	}
	var extents []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(mustSh(t, dir, "nbdinfo --map --json "+uri("vm"))), &extents); err != nil {
		t.Fatal(err)
	}
	if len(extents) != 5 || extents[1].Offset != 1<<20 || extents[1].Length != 1<<20 || extents[1].Type != 0 || extents[2].Type != 3 || extents[2].Length != 4<<20 {
		t.Errorf("the map is %+v", extents)
	}
	mustSh(t, dir, "nbdcopy "+uri("vm")+" copy && cmp ram copy")
	must(t, dir, "image", "export", "vm", "out")
	mustSh(t, dir, "cmp ram out && test $(du -k out | cut -f1) -le 2100")
	mustSh(t, dir, lsadBinary+" image export vm - | cmp - ram")
	must(t, dir, "image", "export", "vm", "--state", "state.out")
	mustSh(t, dir, "cmp state state.out")
	// Standard output is for what is exported alone.
	mustSh(t, dir, lsadBinary+" image export vm - --state beside > memory && cmp ram memory && cmp state beside")
	mustSh(t, dir, lsadBinary+" image export vm beside.ram --state - > piped && cmp state piped && cmp ram beside.ram && ! test -e ./-")
	if r := lsad(t, dir, "image", "export", "vm", "-", "--state", "-"); r.code != 2 {
		t.Errorf("both to standard output: %+v", r)
	}
	if r := lsad(t, dir, "image", "export", "vm"); r.code != 2 {
		t.Errorf("an export of nothing: %+v", r)
	}
	if r := lsad(t, dir, "image", "export", "vm", "out"); r.code != 1 || !strings.Contains(r.stderr, "exists") {
		t.Errorf("an export over a file: %+v", r)
	}

	// Images and volumes do not mix.
	if all := mustJSON[[]admin.Volume](t, dir, "volume", "list"); len(all) != 1 {
		t.Errorf("volumes %+v", all)
	}
	for _, args := range [][]string{
		{"volume", "delete", "vm"}, {"volume", "rename", "vm", "x"}, {"volume", "resize", "vm", "16MiB"}, {"volume", "snapshot", "vm@x"}, {"volume", "show", "vm"},
		{"volume", "delete", snapshot}, {"volume", "delete", "vol0"}, {"volume", "rename", "vol0", "x"},
		{"volume", "create", "vm", "1MiB"}, {"image", "delete", "vol0"}, {"image", "show", "vol0"}, {"image", "rename", "vm", "vol0"}, {"image", "fork", "vm", "vol0"},
	} {
		if r := lsad(t, dir, args...); r.code != 1 {
			t.Errorf("%v: %+v", args, r)
		}
	}

	// A fork has its own memory and disk.
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 2 0 1M' "+uri("vol0"))
	must(t, dir, "image", "fork", "vm", "twin")
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 1 0 1M' "+uri("twin-vol0"))
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 9 0 64k' -c 'read -P 9 0 64k' "+uri("twin"))
	mustSh(t, dir, "nbdcopy "+uri("vm")+" again && cmp ram again")
	list := must(t, dir, "image", "list")
	checkColumns(t, list)
	if !strings.Contains(list, "twin ") || !strings.Contains(list, "25%") {
		t.Errorf("image list:\n%s", list)
	}
	if show := must(t, dir, "image", "show", "twin"); !strings.Contains(show, "twin-vol0, clone of "+snapshot) {
		t.Errorf("image show:\n%s", show)
	}

	// A later image shares what did not change.
	mustSh(t, dir, "cp --sparse=always ram later && printf x | dd of=later conv=notrunc bs=1 seek=1048576 2>&1")
	later := mustJSON[admin.Image](t, dir, "image", "import", "vm-later", "later", "--parent", "vm", "--paused")
	if later.StoredBytes != 4096 || later.Pages.Shared != 511 || later.Parent != "vm" {
		t.Errorf("with a parent: %+v", later)
	}
	mustSh(t, dir, "nbdcopy "+uri("vm-later")+" l && cmp later l")
	if r := lsad(t, dir, "image", "export", "vm-later", "--state", "none"); r.code != 1 || !strings.Contains(r.stderr, "without") {
		t.Errorf("the state of an image that has none: %+v", r)
	}

	metrics := get(t, "http://"+p.status().Listen.HTTP[0]+"/metrics")
	for _, line := range []string{"lsad_images 2", "lsad_image_forks 1", `lsad_image_imports_total{result="completed"} 2`, `lsad_image_imported_bytes_total{fate="zero"} 1.2582912e+07`} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("no metric %s", line)
		}
	}

	must(t, dir, "image", "rename", "vm", "old")
	must(t, dir, "image", "delete", "old")
	if v := mustJSON[admin.Volume](t, dir, "volume", "show", "vol0"); len(v.Snapshots) != 0 {
		t.Errorf("the image's snapshot stayed: %+v", v.Snapshots)
	}
	mustSh(t, dir, "nbdcopy "+uri("vm-later")+" l2 && cmp later l2")
	p.stop()
	p = serveIn(t, dir, again...)
	mustSh(t, dir, "nbdcopy "+uri("vm-later")+" l3 && cmp later l3")
	p.stop()
	mustSh(t, dir, lsadBinary+" check")
}

// monitor is QEMU's, of a VM that is paused. It answers each query-status when it is told to, with what it is told.
type monitor struct {
	asked   chan struct{}
	answers chan string
}

func newMonitor(t *testing.T, path string) *monitor {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{make(chan struct{}), make(chan string)}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		close(m.answers)
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.serve(c)
		}
	}()
	return m
}

func (m *monitor) serve(c net.Conn) {
	defer c.Close()
	fmt.Fprintln(c, `{"QMP": {"version": {}, "capabilities": []}}`)
	for scan := bufio.NewScanner(c); scan.Scan(); {
		var q struct {
			Execute string
			ID      int
		}
		if json.Unmarshal(scan.Bytes(), &q) != nil {
			return
		}
		answer := "{}"
		switch q.Execute {
		case "query-memdev":
			answer = "[]"
		case "query-status":
			m.asked <- struct{}{}
			answer = fmt.Sprintf(`{"running": false, "status": %q}`, <-m.answers)
		}
		fmt.Fprintf(c, `{"return": %s, "id": %d}`+"\n", answer, q.ID)
	}
}

// importing starts an import and returns when all is written and the monitor was asked the second time.
func importing(t *testing.T, dir string, m *monitor, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(lsadBinary, "image", "import", name, "ram", "--qmp", "qmp", "--with-volume", "vol0")
	cmd.Dir = dir
	cmd.Stderr = new(bytes.Buffer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.wait(t)
	m.answers <- "paused"
	m.wait(t)
	return cmd
}

func (m *monitor) wait(t *testing.T) {
	t.Helper()
	select {
	case <-m.asked:
	case <-time.After(patience):
		t.Fatal("nobody asks the monitor")
	}
}

// checkNothingLeft fails if anything but vol0 is there.
func checkNothingLeft(t *testing.T, dir, when string) {
	t.Helper()
	if all := mustJSON[[]admin.Image](t, dir, "image", "list"); len(all) != 0 {
		t.Errorf("%s: images %+v", when, all)
	}
	if v := mustJSON[admin.Volume](t, dir, "volume", "show", "vol0"); len(v.Snapshots) != 0 {
		t.Errorf("%s: snapshots %+v", when, v.Snapshots)
	}
	waitUnused(t, dir, when)
	if out := mustSh(t, dir, "nbdinfo --list "+uri("")); strings.Contains(out, "importing") {
		t.Errorf("%s: exports\n%s", when, out)
	}
}

// waitUnused fails unless the array becomes empty; what was deleted gives its space back in the background.
func waitUnused(t *testing.T, dir, when string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if mustJSON[admin.Status](t, dir, "status").UsedBytes == 0 {
			return
		}
	}
	t.Errorf("%s: some space stays in use", when)
}

func TestImportInterrupted(t *testing.T) {
	needTool(t, "nbdinfo")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	makeRAM(t, filepath.Join(dir, "ram"), 2)
	m := newMonitor(t, filepath.Join(dir, "qmp"))

	// While it runs nobody sees it, and nobody can open it.
	cmd := importing(t, dir, m, "vm")
	if all := mustJSON[[]admin.Volume](t, dir, "volume", "list"); len(all) != 1 || len(all[0].Snapshots) != 1 {
		t.Errorf("during an import there are the volumes %+v", all)
	}
	if out := mustSh(t, dir, "nbdinfo --list "+uri("")); strings.Contains(out, "importing") {
		t.Errorf("exports during an import:\n%s", out)
	}
	if r := lsad(t, dir, "image", "import", "vm", "ram", "--paused"); r.code != 1 || !strings.Contains(r.stderr, "being imported") {
		t.Errorf("a second import of the same name: %+v", r)
	}
	// Ctrl-C.
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(cmd.Stderr.(*bytes.Buffer).String(), "nothing is left") {
		t.Errorf("an interrupted import: %v, %s", err, cmd.Stderr)
	}
	for end := time.Now().Add(patience); strings.Contains(get(t, "http://"+p.status().Listen.HTTP[0]+"/metrics"), "\nlsad_image_imports_active 1\n"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the import goes on")
		}
	}
	m.answers <- "paused" // to nobody
	checkNothingLeft(t, dir, "after ctrl-C")

	// The VM ran meanwhile.
	cmd = importing(t, dir, m, "vm")
	m.answers <- "running"
	if err := cmd.Wait(); err == nil || !strings.Contains(cmd.Stderr.(*bytes.Buffer).String(), "not known to be paused") {
		t.Errorf("an import of a VM that ran: %v, %s", err, cmd.Stderr)
	}
	checkNothingLeft(t, dir, "after the VM ran")

	// The server is stopped.
	cmd = importing(t, dir, m, "vm")
	p.stop()
	m.answers <- "paused" // to nobody
	if err := cmd.Wait(); err == nil || !strings.Contains(cmd.Stderr.(*bytes.Buffer).String(), "shutting down") {
		t.Errorf("an import at the end of the server: %v, %s", err, cmd.Stderr)
	}
	p = serveIn(t, dir, again...)
	checkNothingLeft(t, dir, "after a stop")

	// The server is killed.
	cmd = importing(t, dir, m, "vm")
	p.kill()
	m.answers <- "paused"
	if err := cmd.Wait(); err == nil {
		t.Error("an import outlived its server")
	}
	p = serveIn(t, dir, again...)
	checkNothingLeft(t, dir, "after kill -9")
	if !strings.Contains(p.stderr(), "interrupted operation on an image left behind") {
		t.Error("the log does not say what was deleted")
	}
	p.stop()
}

// TestStalledExport stops a server while a client of an export does not read.
func TestStalledExport(t *testing.T) {
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	makeRAM(t, filepath.Join(dir, "ram"), 4)
	must(t, dir, "image", "import", "vm", "ram", "--paused")
	c, err := net.Dial("unix", filepath.Join(dir, "lsad-data", "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/images/vm/memory HTTP/1.1\r\nHost: lsad\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if i := mustJSON[admin.Image](t, dir, "image", "show", "vm"); len(i.Clients) != 1 || i.Clients[0] != "an export" {
		t.Errorf("clients %q", i.Clients)
	}
	if r := lsad(t, dir, "image", "delete", "vm"); r.code != 1 || !strings.Contains(r.stderr, "an export") {
		t.Errorf("delete of an image in use: %+v", r)
	}
	p.stop()
}

func TestBarText(t *testing.T) {
	for _, test := range []struct {
		p    admin.JobProgress
		took time.Duration
		want string
	}{
		{admin.JobProgress{Step: "find free pages"}, time.Second, "find free pages ..."},
		{admin.JobProgress{Step: "copy", DoneBytes: 50 << 20, TotalBytes: 100 << 20}, 2 * time.Second, "copy [###############...............]  50% 25.0 MiB/s"},
		{admin.JobProgress{Step: "copy", DoneBytes: 0, TotalBytes: 100}, 0, "copy [..............................]   0%"},
		{admin.JobProgress{Step: "copy", DoneBytes: 101, TotalBytes: 100}, 0, "copy [##############################] 100%"},
	} {
		if got := barText(test.p, test.took); got != test.want {
			t.Errorf("%+v: %q, want %q", test.p, got, test.want)
		}
	}
}

func TestBadImports(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	p := serveIn(t, dir, tiny...)
	makeRAM(t, filepath.Join(dir, "ram"), 3)
	for name, size := range map[string]int64{"odd": 4097, "empty": 0, "huge": 100 << 20, "large": memsvc.MaxState + 1} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
			t.Fatal(err)
		}
	}
	mustSh(t, dir, "mkfifo pipe && printf '\\177ELFxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' > elf && head -c 60M /dev/urandom > full")
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"vm ram", 2, "is the VM paused"},
		{"vm ram --paused --qmp x", 2, "qmp"},
		{"vm ram --qmp nothing", 1, "nothing"},
		{"a/b ram --paused", 2, "name"},
		{"importing.x ram --paused", 1, "in the making"},
		{"vol0 ram --paused", 1, "exists"},
		{"vm missing --paused", 1, "missing"},
		{"vm pipe --paused", 1, "regular"},
		{"vm ram --paused --state pipe", 1, "regular"},
		{"vm ram --paused --state large", 1, "4294967297"},
		{"vm . --paused", 1, "regular"},
		{"vm odd --paused", 1, "pages"},
		{"vm empty --paused", 1, "pages"},
		{"vm elf --paused", 1, "ELF"},
		{"vm ram --paused --layout round", 1, "auto"},
		{"vm ram --paused --layout 0:4096", 1, "layout"},
		{"vm ram --paused --parent nothing", 1, "nothing"},
		{"vm ram --paused --parent vol0", 1, "vol0"},
		{"vm ram --paused --with-volume nothing", 1, "nothing"},
		{"vm full --paused", 1, "space"},
	} {
		r := lsad(t, dir, append([]string{"image", "import"}, strings.Fields(test.args)...)...)
		if r.code != test.code || !strings.Contains(r.stderr, test.want) {
			t.Errorf("image import %s: %+v, want code %d and %q", test.args, r, test.code, test.want)
		}
	}
	if all := mustJSON[[]admin.Image](t, dir, "image", "list"); len(all) != 0 {
		t.Errorf("images %+v", all)
	}
	waitUnused(t, dir, "after bad imports")
	// Over TCP neither files nor memory.
	url := "http://" + p.status().Listen.HTTP[0] + "/v1/images"
	resp, err := http.Post(url, "application/json", strings.NewReader(`{"name":"vm","file":"/etc/passwd","paused":true}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("an import over TCP: %s %s", resp.Status, body)
	}
	must(t, dir, "image", "import", "vm", "ram", "--paused")
	if resp, err = http.Get(url + "/vm/memory"); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("memory over TCP: %s", resp.Status)
	}
	p.stop()
}

// TestMemoryPage parses each lsad command line of docs/MEMORY.md, runs the block that the page says is tested, and
// looks for the metrics that it names.
func TestMemoryPage(t *testing.T) {
	needTool(t, "nbdinfo", "nbdcopy", "cmp")
	raw, err := os.ReadFile("../../docs/MEMORY.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	found := 0
	for _, m := range regexp.MustCompile("(?m)^    (lsad .*)$").FindAllStringSubmatch(text, -1) {
		command, _, _ := strings.Cut(m[1], " | ")
		checkExample(t, strings.Fields(command)[1:])
		found++
	}
	if found < 8 {
		t.Errorf("only %d commands found", found)
	}
	_, block, _ := strings.Cut(text, "<!-- tested: image -->\n```sh\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("there is no tested block")
	}
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	out := mustSh(t, dir, "PATH='"+filepath.Dir(lsadBinary)+"':$PATH\nset -e\n"+block)
	for _, want := range []string{"web2-vol0", "100%", "shared with the parent", "hole,zero"} {
		if !strings.Contains(out, want) {
			t.Errorf("the block printed no %q:\n%s", want, out)
		}
	}
	body := get(t, "http://"+p.status().Listen.HTTP[0]+"/metrics")
	for _, name := range regexp.MustCompile(`lsad_image[a-z_]+`).FindAllString(text, -1) {
		if !strings.Contains(body, "\n# HELP "+name+" ") {
			t.Errorf("there is no metric %s", name)
		}
	}
	p.stop()
}
