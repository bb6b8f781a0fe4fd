package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// twoDirs are flags for metadata in two directories.
var twoDirs = []string{"--meta=meta-a", "--meta=meta-b"}

// dirsInService are the metadata directories that the server has in service.
func (p *process) dirsInService() string {
	var all []string
	for _, d := range p.status().Metadata {
		if d.InService {
			all = append(all, filepath.Base(d.Dir))
		}
	}
	return strings.Join(all, " ")
}

func (p *process) wantDirs(want string) {
	p.t.Helper()
	if got := p.dirsInService(); got != want {
		p.t.Fatalf("metadata directories in service: %q, want %q; %+v", got, want, p.status().Metadata)
	}
}

// waitDirs waits for what is done beside the serving.
func (p *process) waitDirs(want string) {
	p.t.Helper()
	for range 300 {
		if p.dirsInService() == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.wantDirs(want)
}

func writePattern(t *testing.T, dir, pattern string) {
	t.Helper()
	mustSh(t, dir, "qemu-io -f raw -c 'write -P "+pattern+" 0 4M' -c flush "+uri("vol0"))
}

func wantPattern(t *testing.T, dir, pattern string) {
	t.Helper()
	if out := mustSh(t, dir, "qemu-io -r -f raw -c 'read -P "+pattern+" 0 4M' "+uri("vol0")); strings.Contains(out, "verification failed") {
		t.Fatalf("not pattern %s: %s", pattern, out)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// flipTables damages every table of a metadata directory in many places.
func flipTables(t *testing.T, dir string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("tables in %s: %v %v", dir, paths, err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 10; at < len(b)-600; at += 100 {
			b[at] ^= 1
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// wantOut waits for a directory to be out of service, and looks where that is told.
func (p *process) wantOut(name, other string) {
	t := p.t
	t.Helper()
	p.waitDirs(other)
	s := p.status()
	if s.State != "degraded" || !strings.Contains(s.Problem, name) {
		t.Errorf("status: %s, %s", s.State, s.Problem)
	}
	if out := must(t, p.dir, "status"); !strings.Contains(out, name+", out of service: ") {
		t.Errorf("status prints\n%s", out)
	}
	r, err := http.Get("http://" + s.Listen.HTTP[0] + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/healthz: %s", r.Status)
	}
	if body := get(t, "http://"+s.Listen.HTTP[0]+"/metrics"); !strings.Contains(body, name+`"} 0`) || !strings.Contains(body, other+`"} 1`) {
		t.Error("no metric tells of it")
	}
}

// TestMetaDirs does to one metadata directory what disks do, and to the other one too.
func TestMetaDirs(t *testing.T) {
	raced(t, "TestMetaFails")
	needTool(t, "qemu-io")
	dir := t.TempDir()
	serve := func() *process { return serveIn(t, dir, again...) } // the directories are remembered
	p := serveIn(t, dir, append(slices.Clone(tiny), twoDirs...)...)
	p.wantDirs("meta-a meta-b")
	writePattern(t, dir, "1")
	old := t.TempDir()
	p.stop()
	for i, name := range []string{"meta-a", "meta-b"} {
		path, other := filepath.Join(dir, name), []string{"meta-b", "meta-a"}[i]
		copyTree(t, path, old)

		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		p = serve()
		p.wantDirs("meta-a meta-b")
		wantPattern(t, dir, "1")
		writePattern(t, dir, "2")
		p.kill()

		p = serve() // after a crash
		p.wantDirs("meta-a meta-b")
		wantPattern(t, dir, "2")
		p.stop()

		copyTree(t, old, path)
		p = serve()
		p.wantDirs("meta-a meta-b")
		wantPattern(t, dir, "2")
		p.stop()

		flipTables(t, path)
		p = serve()
		wantPattern(t, dir, "2")
		if i == 0 { // it is read from; damage of the other goes unseen where the tables are replaced soon
			p.wantOut(name, other)
		}
		writePattern(t, dir, "1")
		p.stop()
		r := lsad(t, dir, "check")
		if !strings.Contains(r.stdout, "1024 blocks (4.0 MiB) verified") || strings.Contains(r.stdout, "metadata: "+filepath.Join(dir, other)) ||
			i == 0 && !strings.Contains(r.stdout, "metadata: "+path+": it is left out, the other one counts alone: out of date") {
			t.Errorf("check: %+v", r)
		}
		p = serve()
		p.wantDirs("meta-a meta-b")
		wantPattern(t, dir, "1")
		p.stop()
	}
	for _, name := range []string{"meta-a", "meta-b"} { // each alone has everything
		other := map[string]string{"meta-a": "meta-b", "meta-b": "meta-a"}[name]
		if err := os.Rename(filepath.Join(dir, other), filepath.Join(dir, "kept")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, other), nil, 0o600); err != nil { // a directory cannot be made there
			t.Fatal(err)
		}
		p = serve()
		p.wantDirs(name)
		wantPattern(t, dir, "1")
		p.stop()
		if err := os.Remove(filepath.Join(dir, other)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "kept"), filepath.Join(dir, other)); err != nil {
			t.Fatal(err)
		}
		p = serve()
		p.wantDirs("meta-a meta-b")
		p.stop()
	}
}

// TestMetaConversion gives an array of one metadata directory a second one, and takes it away.
func TestMetaConversion(t *testing.T) {
	raced(t, "TestMetaFails")
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, tiny...)
	if m := p.status().Metadata; len(m) != 1 || !m[0].InService {
		t.Errorf("metadata of a single directory: %+v", m)
	}
	writePattern(t, dir, "3")
	p.stop()

	p = serveIn(t, dir, append(slices.Clone(again), "--meta=lsad-data/meta", "--meta=meta-b")...)
	p.wantDirs("meta meta-b")
	wantPattern(t, dir, "3")
	writePattern(t, dir, "4")
	p.stop()
	must(t, dir, "check")

	p = serveIn(t, dir, append(slices.Clone(again), "--meta=meta-b")...)
	p.wantDirs("meta-b")
	wantPattern(t, dir, "4")
	writePattern(t, dir, "5")
	p.stop()

	r := lsad(t, dir, append([]string{"serve", "--meta=lsad-data/meta"}, again...)...) // what was left behind
	if r.code != 1 || !strings.Contains(r.stderr, "out of date") {
		t.Errorf("an old directory: %d, %s", r.code, r.stderr)
	}
	r = lsad(t, dir, append([]string{"serve", "--meta=nosuch"}, again...)...)
	if r.code != 1 || !strings.Contains(r.stderr, "no metadata store") {
		t.Errorf("an empty directory: %d, %s", r.code, r.stderr)
	}
	p = serveIn(t, dir, again...)
	p.wantDirs("meta-b")
	wantPattern(t, dir, "5")
	p.stop()
}

// TestMetaNewNotEmpty holds that a new array is not made in a directory that has something in it.
func TestMetaNewNotEmpty(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"meta-a", "meta-b"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(dir, "meta-b", "kept")
	if err := os.WriteFile(kept, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := lsad(t, dir, append(append([]string{"serve"}, tiny...), twoDirs...)...)
	if r.code != 1 || !strings.Contains(r.stderr, "meta-b is not empty") {
		t.Errorf("%d, %s", r.code, r.stderr)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// fillUp takes the room that a file system has, once: what is released later is not taken.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-64<<10); err != nil {
		t.Fatal(err)
	}
}

// TestMetaFull fills the file system of one metadata directory. Neither directory is out of service for that, and
// nothing that was acknowledged is lost.
func TestMetaFull(t *testing.T) {
	raced(t, "TestMetaFails")
	needTool(t, "qemu-io")
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	p := serveIn(t, dir, append(slices.Clone(tiny), "--meta=meta-a", "--meta=small/meta-b")...)
	writePattern(t, dir, "1")
	fillUp(t, small)
	for i := range 40 { // many changes of the map, each of them made durable
		sh(t, dir, "qemu-io -f raw -c 'write -P 2 4M "+strconv.Itoa(4096*(i+1))+"' "+uri("vol0"))
		lsad(t, dir, "volume", "snapshot", "vol0", "s"+strconv.Itoa(i))
	}
	p.wantDirs("meta-a meta-b")
	wantPattern(t, dir, "1")
	p.stop()
	if err := os.Remove(filepath.Join(small, "filler")); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, again...)
	p.wantDirs("meta-a meta-b")
	wantPattern(t, dir, "1")
	writePattern(t, dir, "3")
	p.stop()
	must(t, dir, "check")
}

// TestMetaTaken has another program take all room on the file system of the only metadata directory, the reserve of lsad
// included, again and again. The server goes on, also over a stop, and has everything when there is room again.
func TestMetaTaken(t *testing.T) {
	raced(t, "TestMetaFails")
	needTool(t, "qemu-io")
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	taken := filepath.Join(dir, "small")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", taken, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(taken, unix.MNT_DETACH) })
	p := serveIn(t, dir, append(slices.Clone(tiny), "--map-cache=32MiB", "--meta=small/meta")...)
	writePattern(t, dir, "1")
	filler, err := os.Create(filepath.Join(taken, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	hog := make(chan struct{})
	hogged := make(chan struct{})
	go func() { // what is let go is taken at once
		defer close(hogged)
		chunk := make([]byte, 16<<10)
		for {
			select {
			case <-hog:
				return
			case <-time.After(time.Millisecond):
			}
			for {
				if n, err := filler.Write(chunk); n < len(chunk) || err != nil {
					break
				}
			}
		}
	}()
	for i := range 8 {
		sh(t, dir, "qemu-io -f raw -c 'write -P 2 4M "+strconv.Itoa(4096*(i+1))+"' -c flush "+uri("vol0"))
		lsad(t, dir, "volume", "snapshot", "vol0", "s"+strconv.Itoa(i))
	}
	wantPattern(t, dir, "1")
	mustSh(t, dir, "qemu-io -f raw -d unmap -c 'discard 4M 1M' "+uri("vol0"))
	room := make(chan error, 1)
	time.AfterFunc(500*time.Millisecond, func() { // the checkpoint of the stop waits for it
		close(hog)
		<-hogged
		room <- filler.Truncate(0)
	})
	p.stop()
	if err := <-room; err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, again...)
	wantPattern(t, dir, "1")
	writePattern(t, dir, "3")
	p.stop()
	must(t, dir, "check")
}
