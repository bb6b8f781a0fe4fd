package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lsad/internal/config"
	"lsad/lsa"
	"lsad/lsa/format"
	"lsad/server/admin"
)

// tree describes all files below a directory: names, modes, lengths and, for what is not large, contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", path, info.Mode())
		if info.Mode().IsRegular() && e.Name() != lockFile && e.Name() != usesFile {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %08x", len(text), format.Checksum(text))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBadStart are starts that fail before there is an array: each says why, and leaves nothing behind.
func TestBadStart(t *testing.T) {
	oneByOne(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := "--device=d0:64MiB"
	for _, tt := range []struct {
		name  string
		args  []string
		code  int
		wants []string
	}{
		{"unknown flag", []string{"--sise=1"}, 2, []string{"--sise", "lsad serve --help"}},
		{"nearest flag", []string{"--mapcache=1GiB"}, 2, []string{"--mapcache", "did you mean --map-cache?"}},
		{"argument", []string{"now"}, 2, []string{`unexpected argument "now"`}},
		{"volume name with a slash", []string{"--volume=a/b:1GiB"}, 2, []string{`"a/b"`, "letters"}},
		{"volume of size zero", []string{"--volume=v:0"}, 2, []string{"above zero"}},
		{"volume beyond the format", []string{"--volume=v:5EiB"}, 2, []string{"largest volume", "4EiB"}},
		{"volume beyond 64 bits", []string{"--volume=v:16EiB"}, 2, []string{"too large", "no volumes above 4EiB"}},
		{"device too small", []string{"--device=d0:8MiB"}, 1, []string{"d0", "too small", "257MiB", "--segment-size"}},
		{"device missing", []string{"--device=d0"}, 1, []string{"d0", "does not exist", "--device d0:4GiB"}},
		{"device a directory", []string{"--device=sub"}, 1, []string{"sub", "neither a regular file nor a block device"}},
		{"nothing to open degraded", []string{d, "--degraded"}, 1, []string{"no array", "without --degraded"}},
		{"device that exists", []string{"--device=sub/file:64MiB"}, 1, []string{"sub/file", "exists already"}},
		{"device in no directory", []string{"--device=nosuch/d0:300MiB"}, 1, []string{"nosuch/d0", "make its directory"}},
		{"device beyond the file system", []string{"--device=d0:4194304TiB"}, 1, []string{"d0", "takes no file of"}},
		{"metadata in no directory", []string{"--device=d0:300MiB", "--meta=nosuch/m"}, 1, []string{"nosuch/m", "make what it lies in"}},
		{"existing file too small", []string{"--device=sub/file"}, 1, []string{"sub/file", "takes 8"}},
		{"config missing", []string{"--config=nosuch.toml"}, 1, []string{"nosuch.toml", "no such file"}},
		{"config typo", []string{"--config=typo.toml"}, 2, []string{"typo.toml", "line 2", `"mapcache"`, `"map-cache"`}},
		{"nbd port in use", []string{d, "--nbd=" + taken.Addr().String()}, 1, []string{taken.Addr().String(), "address already in use", "another port"}},
		{"http port in use", []string{d, "--http=" + taken.Addr().String()}, 1, []string{taken.Addr().String(), "address already in use"}},
		{"socket path taken by a file", []string{d, "--nbd=unix:sub/file"}, 1, []string{"sub/file", "not a socket"}},
		{"socket in no directory", []string{d, "--nbd=unix:nosuch/s"}, 1, []string{"nosuch/s", "no such file"}},
		{"data directory a file", []string{"--dir=sub/file"}, 1, []string{"sub/file", "not a directory"}},
		{"data directory below a file", []string{"--dir=sub/file/x"}, 1, []string{"sub/file", "not a directory"}},
		{"data directory not writable", []string{"--dir=/proc/lsad"}, 1, []string{"/proc/lsad"}},
		{"open to the network", []string{d, "--nbd=0.0.0.0:0"}, 2, []string{"0.0.0.0:0", "--tls-cert", "--insecure"}},
		{"http open to the network", []string{d, "--http=:0"}, 2, []string{"--insecure"}},
		{"map cache beyond the memory", []string{d, "--map-cache=100TiB"}, 2, []string{"map-cache", "this machine has"}},
		{"no such group", []string{d, "--group=nosuchgroup"}, 2, []string{"nosuchgroup"}},
		{"no such certificate", []string{d, "--tls-cert=c.pem", "--tls-key=k.pem"}, 2, []string{"c.pem", "no such file"}},
		{"no such host", []string{d, "--nbd=no such host:1"}, 2, []string{"no such host"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			os.MkdirAll(filepath.Join(dir, "sub"), 0o700)
			os.WriteFile(filepath.Join(dir, "sub/file"), []byte("mine"), 0o600)
			os.WriteFile(filepath.Join(dir, "typo.toml"), []byte("dir = \"x\"\nmapcache = \"1GiB\"\n"), 0o600)
			before := tree(t, dir)
			args := append([]string{"serve", "--http=none"}, tt.args...)
			checkFailure(t, lsad(t, dir, args...), tt.code, tt.wants)
			if after := tree(t, dir); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

func checkFailure(t *testing.T, r result, code int, wants []string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, want := range wants {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in: %s", want, r.stderr)
		}
	}
	if strings.Contains(r.stderr, "goroutine ") {
		t.Errorf("it panicked: %s", r.stderr)
	}
}

// edit changes bytes of a file.
func edit(t *testing.T, path string, off int64, fn func(p []byte)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, format.SuperblockSize)
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	fn(p)
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// editSuper changes both copies of a superblock, with a right checksum.
func editSuper(t *testing.T, path string, fn func(s *format.Superblock)) {
	t.Helper()
	for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		edit(t, path, off, func(p []byte) {
			s, err := format.DecodeSuperblock(p)
			if err != nil {
				t.Fatal(err)
			}
			fn(s)
			copy(p, format.EncodeSuperblock(s))
		})
	}
}

// TestDamagedArray are arrays that were tampered with while they were stopped: the start says what is wrong and
// changes nothing.
func TestDamagedArray(t *testing.T) {
	onlyFull(t)
	base := t.TempDir()
	p := serveIn(t, base, tiny...)
	needTool(t, "qemu-io")
	mustSh(t, base, "qemu-io -f raw -c 'write -P 5 0 2M' "+uri("vol0"))
	p.stop()
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, data string)
		args   []string
		wants  []string
	}{
		{"truncated device", func(t *testing.T, data string) { os.Truncate(data+"/d1", 6<<20) }, nil, []string{"d1", "cut short"}},
		{"device cut to nothing", func(t *testing.T, data string) { os.Truncate(data+"/d1", 0) }, nil, []string{"d1"}},
		{"device missing", func(t *testing.T, data string) { os.Remove(data + "/d1") }, nil, []string{"d1", "no such file", "--degraded"}},
		{"device of another array", func(t *testing.T, data string) {
			other := t.TempDir()
			serveIn(t, other, tiny...).stop()
			os.Rename(other+"/lsad-data/d1", data+"/d1")
		}, nil, []string{"d1", "another array"}},
		{"the same device twice", func(t *testing.T, data string) {
			text, _ := os.ReadFile(data + "/d0")
			os.WriteFile(data+"/d1", text, 0o600)
		}, nil, []string{"same identity"}},
		{"device never used", func(t *testing.T, data string) { os.WriteFile(data+"/d1", make([]byte, 8<<20), 0o600) }, nil, []string{"d1", "not a device of an lsad array"}},
		{"both superblocks flipped", func(t *testing.T, data string) {
			for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
				edit(t, data+"/d1", off, func(p []byte) { p[100] ^= 1 })
			}
		}, nil, []string{"d1", "checksum", "move its file away", "--degraded"}},
		{"unknown feature", func(t *testing.T, data string) {
			editSuper(t, data+"/d1", func(s *format.Superblock) { s.Incompat |= 1 << 40 })
		}, nil, []string{"d1", "features 0x10000000000"}},
		{"metadata store gone", func(t *testing.T, data string) { os.RemoveAll(data + "/meta") }, nil, []string{"meta"}},
		{"member file damaged", func(t *testing.T, data string) { os.WriteFile(data+"/array.toml", []byte("version = \"x"), 0o600) }, nil, []string{"array.toml", "line 1", "--device"}},
		{"member file lost", func(t *testing.T, data string) { os.Remove(data + "/array.toml") }, nil, []string{"array.toml is missing", "--device"}},
		{"member file of the future", func(t *testing.T, data string) {
			os.WriteFile(data+"/array.toml", []byte("version = 9\ndevices = [\"d0\"]"), 0o600)
		}, nil, []string{"array.toml", "version 9"}},
		{"device with another size than asked", func(*testing.T, string) {}, []string{"--device=lsad-data/d0:32MiB"}, []string{"d0", "32MiB"}},
		{"too few devices named", func(*testing.T, string) {}, []string{"--device=lsad-data/d0"}, []string{"missing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			data := filepath.Join(dir, "lsad-data")
			mustSh(t, dir, "cp -a --sparse=always '"+base+"/lsad-data' .")
			tt.damage(t, data)
			before := tree(t, dir)
			checkFailure(t, lsad(t, dir, append([]string{"serve", "--http=none"}, tt.args...)...), 1, tt.wants)
			if after := tree(t, dir); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// TestOneSuperblockCopy flips a bit in one copy: the array opens, and lsad check says so.
func TestOneSuperblockCopy(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	serveIn(t, dir, small...).stop()
	edit(t, filepath.Join(dir, "lsad-data/d1"), format.SuperblockOffsetB, func(p []byte) { p[100] ^= 1 })
	r := lsad(t, dir, "check")
	if r.code != 1 || !strings.Contains(r.stdout, "superblock") || !strings.Contains(r.stdout, "d1") {
		t.Errorf("check: %+v", r)
	}
	if out := must(t, dir, "dump"); !strings.Contains(out, "damaged:") {
		t.Errorf("dump does not show the damaged copy:\n%s", out)
	}
	serveIn(t, dir, again...).stop()
	must(t, dir, "check")
}

func TestCheckFindsDamagedData(t *testing.T) {
	oneByOne(t)
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 5 0 1M' "+uri("vol0"))
	if r := lsad(t, dir, "check"); r.code != 1 || !strings.Contains(r.stderr, "in use by another process") {
		t.Errorf("check while the server runs: %+v", r)
	}
	p.stop()
	before := tree(t, dir)
	out := must(t, dir, "check")
	if !strings.Contains(out, "256 blocks (1.0 MiB) verified") || !strings.Contains(out, "nothing is wrong") {
		t.Errorf("check of a sound array: %s", out)
	}
	device, off := lastDataBlock(t, dir)
	if tree(t, dir) != before {
		t.Error("check or dump changed something")
	}
	edit(t, device, off, func(p []byte) { p[100] ^= 0x40 })
	r := lsad(t, dir, "check")
	if r.code != 1 || !strings.Contains(r.stdout, "volume vol0 at byte") || !strings.Contains(r.stdout, "lsad-data/"+filepath.Base(device)+" segment") || !strings.Contains(r.stdout, "problems: 1") {
		t.Errorf("check of a damaged array: %+v", r)
	}
	at := regexp.MustCompile(`at byte (\d+)`).FindStringSubmatch(r.stdout)[1]
	half := "0 512k" // the one without the damage
	if n, err := strconv.Atoi(at); err != nil || n < 512<<10 {
		half = "512k 512k"
	}
	report := lsad(t, dir, "check", "--json")
	if report.code != 1 || !strings.Contains(report.stdout, `"kind": "data"`) {
		t.Errorf("check --json: %+v", report)
	}
	// Serving goes on; the damaged block, and no other, is an error, and is counted.
	p = serveIn(t, dir, again...)
	if out, err := sh(t, dir, "qemu-io -r -f raw -c 'read 0 1M' "+uri("vol0")+" 2>&1"); err == nil && !strings.Contains(out, "Input/output error") {
		t.Errorf("reading damaged data: %s", out)
	}
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 5 "+half+"' "+uri("vol0"))
	if body := get(t, "http://"+p.status().Listen.HTTP[0]+"/metrics"); strings.Contains(body, "lsad_checksum_errors_total 0\n") {
		t.Error("the damage was not counted")
	}
	p.stop()
	if log := p.stderr(); !strings.Contains(log, "a request failed") || !strings.Contains(log, "export=vol0") || !strings.Contains(log, "lsad-data/"+filepath.Base(device)) {
		t.Error("the log does not name the volume and the device")
	}
}

// TestDumpUnusedSegment: nothing to show is said, not shown.
func TestDumpUnusedSegment(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	serveIn(t, dir, small...).stop()
	if out := must(t, dir, "dump", "--segment=0/7"); !strings.Contains(out, "segment 0/7 was never used") {
		t.Errorf("dump of an unused segment: %q", out)
	}
}

// lastDataBlock finds a block of data on the devices of a stopped array: the file, and the offset in it.
func lastDataBlock(t *testing.T, dir string) (path string, off int64) {
	t.Helper()
	for _, s := range mustJSON[[]segmentLine](t, dir, "dump", "--segments") {
		for _, r := range mustJSON[[]recordLine](t, dir, "dump", fmt.Sprintf("--segment=%d/%d", s.Slot, s.Segment)) {
			if r.Blocks > 0 {
				path = filepath.Join(dir, "lsad-data", fmt.Sprintf("d%d", s.Slot))
				off = format.SegmentsOffset + int64(s.Segment)<<20 + int64(r.Sector+r.Sectors)*format.SectorSize - format.BlockSize
			}
		}
	}
	if path == "" {
		t.Fatal("there is no data on the devices")
	}
	return path, off
}

func TestDegraded(t *testing.T) {
	oneByOne(t)
	needTool(t, "qemu-io", "nbdinfo")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 5 0 64k' "+uri("vol0"))
	p.stop()
	slot := 2 // one without the data
	if path, _ := lastDataBlock(t, dir); filepath.Base(path) == "d2" {
		slot = 1
	}
	away := filepath.Join(dir, "away")
	lost := filepath.Join(dir, fmt.Sprintf("lsad-data/d%d", slot))
	if err := os.Rename(lost, away); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, append(again, "--degraded")...)
	s := p.status()
	if s.State != "degraded" || s.Devices[slot].InService || s.Devices[slot].State != "absent" {
		t.Errorf("status: %+v", s)
	}
	if out := mustSh(t, dir, "nbdinfo "+uri("vol0")); !strings.Contains(out, "is_read_only: true") {
		t.Errorf("a degraded array is not read-only:\n%s", out)
	}
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 5 0 64k' "+uri("vol0"))
	if r := lsad(t, dir, "volume", "create", "x", "1MiB"); r.code != 1 || !strings.Contains(r.stderr, "read-only") {
		t.Errorf("create in a degraded array: %+v", r)
	}
	if out, err := sh(t, dir, "curl -s -o /dev/null -w '%{http_code}' http://"+s.Listen.HTTP[0]+"/healthz"); err == nil && out != "503" {
		t.Errorf("/healthz of a degraded array: %s", out)
	}
	p.stop()
	if err := os.Rename(away, lost); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, again...)
	if s := p.status(); s.State != "serving" {
		t.Errorf("with the device back: %+v", s)
	}
	p.stop()
}

// TestTwoCopiesOutliveADevice loses a device for good.
func TestTwoCopiesOutliveADevice(t *testing.T) {
	needTool(t, "qemu-io")
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	must(t, dir, "volume", "create", "safe", "16MiB", "--copies=2")
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 5 0 8M' "+uri("safe"))
	p.stop()
	away, d1 := filepath.Join(dir, "away"), filepath.Join(dir, "lsad-data/d1")
	if err := os.Rename(d1, away); err != nil {
		t.Fatal(err)
	}
	p = serveIn(t, dir, append(again, "--degraded")...)
	mustSh(t, dir, "qemu-io -f raw -c 'read -P 5 0 8M' -c 'write -P 6 0 4M' -c flush "+uri("safe"))
	p.stop()
	if err := os.Rename(away, d1); err != nil {
		t.Fatal(err)
	}
	// It is remembered no more, and refused where it is named.
	named := []string{"serve", "--http=none", "--device=lsad-data/d0", "--device=lsad-data/d1", "--device=lsad-data/d2"}
	checkFailure(t, lsad(t, dir, named...), 1, []string{"d1", "given up", "start without it"})
	p = serveIn(t, dir, again...)
	mustSh(t, dir, "qemu-io -r -f raw -c 'read -P 6 0 4M' -c 'read -P 5 4M 4M' "+uri("safe"))
	p.stop()
}

// TestFullArray: a full array refuses writes with no space, and goes on serving; trimming makes room again.
func TestFullArray(t *testing.T) {
	needTool(t, "qemu-io", "nbdcopy")
	dir := t.TempDir()
	p := serveIn(t, dir, append(tiny, "--volume=big:64MiB")...)
	mustSh(t, dir, "head -c 40000000 /dev/urandom > in")
	if out, err := sh(t, dir, "nbdcopy in "+uri("big")); err == nil || !strings.Contains(out, "No space left on device") {
		t.Errorf("filling the array: %v %s", err, out)
	}
	mustSh(t, dir, "qemu-io -r -f raw -c 'read 0 1M' "+uri("big"))
	mustSh(t, dir, "qemu-io -f raw -d unmap -c 'discard 0 30M' -c 'discard 30M 34M' "+uri("big"))
	mustSh(t, dir, "qemu-io -f raw -c 'write -P 3 0 4M' -c 'read -P 3 0 4M' "+uri("vol0"))
	p.stop()
}

// TestLostMemberFile opens an array by naming its devices.
func TestLostMemberFile(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	serveIn(t, dir, tiny...).stop()
	if err := os.Remove(filepath.Join(dir, "lsad-data/array.toml")); err != nil {
		t.Fatal(err)
	}
	p := serveIn(t, dir, append(again, "--device=lsad-data/d2", "--device=lsad-data/d0", "--device=lsad-data/d1")...)
	must(t, dir, "volume", "show", "vol0")
	p.stop()
	serveIn(t, dir, again...).stop() // they are remembered again
}

func TestCommandUsage(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	for _, tt := range []struct {
		args  []string
		code  int
		wants []string
	}{
		{[]string{}, 2, []string{"needs a command", "serve"}},
		{[]string{"serv"}, 2, []string{`unknown command "serv"`, `did you mean "serve"`}},
		{[]string{"volume"}, 2, []string{"needs a command", "create"}},
		{[]string{"volume", "lst"}, 2, []string{`did you mean "list"`}},
		{[]string{"volume", "create", "a"}, 2, []string{"SIZE is missing"}},
		{[]string{"volume", "create", "a", "1GiB", "--copies", "0"}, 2, []string{"copies 0", "1 or 2"}},
		{[]string{"volume", "create", "a", "1GiB", "--copies", "two"}, 2, []string{"--copies two: a whole number is needed"}},
		{[]string{"volume", "delete", "a@"}, 2, []string{`name ""`}},
		{[]string{"volume", "delete", ""}, 2, []string{`name ""`}},
		{[]string{"volume", "create", "a", "1.5G"}, 2, []string{"whole number"}},
		{[]string{"volume", "create", "a", "-1GiB"}, 2, []string{"-1GiB: numbers and sizes are above zero"}},
		{[]string{"volume", "create", "a", "5EiB"}, 2, []string{"the largest volume has 4EiB"}},
		{[]string{"volume", "resize", "a", "16EiB"}, 2, []string{"no volumes above 4EiB"}},
		{[]string{"volume", "resize", "a@s", "1GiB"}, 2, []string{"a snapshot cannot be resized", "name a volume: a"}},
		{[]string{"volume", "rename", "a@s", "b"}, 2, []string{"a snapshot cannot be renamed"}},
		{[]string{"volume", "create", "a b", "1G"}, 2, []string{`"a b"`}},
		{[]string{"volume", "create", "a", "1G", "now"}, 2, []string{`"now"`}},
		{[]string{"volume", "create", "a", "1000"}, 2, []string{"4 KiB"}},
		{[]string{"volume", "snapshot", "a"}, 2, []string{"VOLUME@SNAPSHOT"}},
		{[]string{"volume", "list"}, 1, []string{"no server at unix:lsad-data/admin.sock", "serve --dir ./lsad-data"}},
		{[]string{"status", "--dir=/nonexistent"}, 1, []string{"no server", "serve --dir /nonexistent"}},
		{[]string{"status", "--admin=127.0.0.1:1"}, 1, []string{"no server at 127.0.0.1:1", "is the server running"}},
		{[]string{"status", "--admin=192.0.2.1:1"}, 2, []string{"not an address of this machine"}},
		{[]string{"status", "--admin=nonsense"}, 2, []string{"unix:PATH or HOST:PORT"}},
		{[]string{"gc", "set"}, 2, []string{"nothing to set"}},
		{[]string{"check"}, 1, []string{"no array in ./lsad-data", "--dir"}},
		{[]string{"dump", "--segments", "--segment=0/1"}, 2, []string{"segment"}},
		{[]string{"check", "--device=nosuch"}, 1, []string{"nosuch", "no such file"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			checkFailure(t, lsad(t, dir, tt.args...), tt.code, tt.wants)
		})
	}
}

func TestMaxVolumeSize(t *testing.T) {
	oneByOne(t)
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	if v := mustJSON[admin.Volume](t, dir, "volume", "create", "huge", "4EiB"); v.SizeBytes != lsa.MaxVolumeSize {
		t.Errorf("created %+v", v)
	}
	if config.MaxVolumeSize != lsa.MaxVolumeSize {
		t.Error("the limits differ")
	}
	checkFailure(t, lsad(t, dir, "volume", "resize", "huge", "1GiB"), 1, []string{"lose what lies beyond", "--force"})
	checkFailure(t, lsad(t, dir, "device", "add", "nosuch"), 1, []string{"does not exist", "lsad device add", "nosuch:4GiB"})
	checkFailure(t, lsad(t, dir, "device", "remove", "nosuch"), 1, []string{`"nosuch"`, "no such device", "d0 (slot 0), ", "(slot 1)"})
	for _, args := range [][]string{{"create", "huge", "1GiB"}, {"resize", "huge", "1GiB"}, {"show", "nosuch"}, {"delete", "huge@nosuch"}, {"rename", "nosuch", "x"}} {
		if r := lsad(t, dir, append([]string{"volume"}, args...)...); r.code != 1 || r.stderr == "" {
			t.Errorf("volume %v: %+v", args, r)
		}
	}
	p.stop()
}
