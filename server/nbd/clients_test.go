package nbd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	goclient "github.com/pojntfx/go-nbd/pkg/client"
	"github.com/pojntfx/go-nbd/pkg/protocol"

	"lsad/internal/nbdproto"
)

// tool skips the test where a program is missing.
func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = t.TempDir() // fio leaves files where it runs
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func (r *rig) uri(name string) string { return fmt.Sprintf("nbd+unix:///%s?socket=%s", name, r.path) }

func TestNbdinfo(t *testing.T) {
	tool(t, "nbdinfo")
	r := newRig(t, nil)
	c := r.enter(t, simple, "disk")
	c.ok(req{cmd: nbdproto.CmdWrite, off: 8192, data: pattern(4096, 0)})
	c.ok(req{cmd: nbdproto.CmdWriteZeroes, flags: nbdproto.CmdFlagNoHole, off: 12288, n: 8192})

	var info struct {
		Protocol   string
		Structured bool
		Exports    []map[string]any
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", r.uri("disk"))), &info); err != nil {
		t.Fatal(err)
	}
	if info.Protocol != "newstyle-fixed" || !info.Structured {
		t.Errorf("%+v", info)
	}
	for key, want := range map[string]any{
		"export-name": "disk", "description": about["disk"], "export-size": float64(testSize), "is_read_only": false,
		"can_flush": true, "can_fua": true, "can_trim": true, "can_zero": true, "can_fast_zero": true,
		"can_cache": true, "can_df": true, "can_multi_conn": true, "is_rotational": false,
		"block_size_minimum": 1.0, "block_size_preferred": 4096.0, "block_size_maximum": float64(MaxPayload),
	} {
		if got := info.Exports[0][key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	list := run(t, "nbdinfo", "--list", r.uri(""))
	for _, want := range []string{`export="disk"`, `export="rom"`, about["disk"], "is_read_only: true"} {
		if !strings.Contains(list, want) {
			t.Errorf("--list lacks %s:\n%s", want, list)
		}
	}
	got := strings.Fields(run(t, "nbdinfo", "--map", r.uri("disk")))
	want := strings.Fields(`0 8192 3 hole,zero  8192 4096 0 data  12288 8192 2 zero  20480 4173824 3 hole,zero`)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("--map:\n%v, want\n%v", got, want)
	}
}

// image makes a file of testSize bytes with data and holes.
func image(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = make([]byte, testSize)
	copy(content[300<<10:], pattern(700<<10, 1))
	copy(content[3<<20:], pattern(5000, 2))
	copy(content[testSize-100:], pattern(100, 3))
	path = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func sameFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs", path)
	}
}

func TestNbdcopy(t *testing.T) {
	tool(t, "nbdcopy")
	r := newRig(t, func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 3 })
	path, content := image(t)
	back := filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", "--flush", path, r.uri("disk"))
	run(t, "nbdcopy", r.uri("disk"), back)
	sameFile(t, back, content)
}

func TestQemu(t *testing.T) {
	tool(t, "qemu-img")
	tool(t, "qemu-io")
	r := newRig(t, func(_ *Config, s *shelf) { s.add("qcow", 64<<20) })
	path, content := image(t)
	back := filepath.Join(t.TempDir(), "back")

	if info := run(t, "qemu-img", "info", r.uri("disk")); !strings.Contains(info, "4 MiB (4194304 bytes)") {
		t.Errorf("info: %s", info)
	}
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path, r.uri("disk"))
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", r.uri("disk"), back)
	sameFile(t, back, content)
	if cmp := run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", path, r.uri("disk")); !strings.Contains(cmp, "identical") {
		t.Errorf("compare: %s", cmp)
	}

	run(t, "qemu-img", "create", "-f", "qcow2", r.uri("qcow"), "32M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 300k", "-c", "write -z 1200k 64k", "-c", "discard 1M 64k",
		"-c", "read -P 0 1M 64k", "-c", "read -P 7 1088k 112k", "-c", "read -P 0 1200k 64k", "-c", "flush", r.uri("qcow"))
	if check := run(t, "qemu-img", "check", "-f", "qcow2", r.uri("qcow")); !strings.Contains(check, "No errors") {
		t.Errorf("check: %s", check)
	}

	run(t, "qemu-io", "-f", "raw", "-c", "write -P 5 512 1000k", "-c", "write -z 4k 8k", "-c", "write -zu 64k 128k",
		"-c", "read -P 5 512 512", "-c", "read -P 0 4k 8k", "-c", "read -P 0 64k 128k", "-c", "writev -f -P 9 1 2 3",
		"-c", "aio_write -P 1 2M 1M", "-c", "aio_read 1M 1M", "-c", "aio_flush", "-c", "read -P 1 2M 1M", r.uri("disk"))
	if out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 512", r.uri("rom")).CombinedOutput(); err == nil {
		t.Errorf("qemu-io wrote to a read-only export: %s", out)
	}
}

func TestFio(t *testing.T) {
	tool(t, "fio")
	r := newRig(t, func(_ *Config, s *shelf) { s.disks["disk"].TryReads = 4 })
	common := []string{"--ioengine=nbd", "--uri=" + r.uri("disk"), "--size=4m", "--verify=crc32c", "--verify_fatal=1", "--output=/dev/null"}
	for _, job := range [][]string{
		{"--rw=randwrite", "--bs=4k", "--iodepth=32"},
		{"--rw=randrw", "--bsrange=512-70k", "--blockalign=512", "--iodepth=16", "--fsync=4"},
		{"--rw=write", "--bs=1m", "--iodepth=4"},
		{"--rw=randtrimwrite", "--bs=4k", "--iodepth=8", "--verify=0"},
	} {
		run(t, "fio", append(append([]string{"--name=x"}, common...), job...)...)
	}
}

// TestClientsTLS has clients of other make connect with certificates.
func TestClientsTLS(t *testing.T) {
	p := newPKI(t)
	r := newRig(t, p.use(t, TLSRequire))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	path, content := image(t)
	t.Run("libnbd", func(t *testing.T) {
		tool(t, "nbdcopy")
		uri := fmt.Sprintf("nbds://localhost:%s/disk?tls-certificates=%s", port, p.dir)
		if info := run(t, "nbdinfo", uri); !strings.Contains(info, "newstyle-fixed with TLS") {
			t.Errorf("nbdinfo: %s", info)
		}
		run(t, "nbdcopy", path, uri)
		back := filepath.Join(t.TempDir(), "back")
		run(t, "nbdcopy", uri, back)
		sameFile(t, back, content)
		if out, err := exec.Command("nbdinfo", "nbd://localhost:"+port+"/disk").CombinedOutput(); err == nil {
			t.Errorf("nbdinfo without TLS: %s", out)
		}
	})
	t.Run("qemu", func(t *testing.T) {
		tool(t, "qemu-img")
		out := run(t, "qemu-img", "info", "--object", "tls-creds-x509,id=t,dir="+p.dir+",endpoint=client", "--image-opts",
			"driver=nbd,host=localhost,port="+port+",export=disk,tls-creds=t")
		if !strings.Contains(out, "4 MiB") {
			t.Errorf("qemu-img: %s", out)
		}
	})
	t.Run("selective", func(t *testing.T) {
		tool(t, "nbdinfo")
		r := newRig(t, p.use(t, TLSAllow))
		for _, uri := range []string{r.uri("disk"), strings.Replace(r.uri("disk"), "nbd+", "nbds+", 1) + "&tls-certificates=" + p.dir + "&tls-verify-peer=false"} {
			run(t, "nbdinfo", uri)
		}
	})
}

// TestGoNBD has the client of pojntfx/go-nbd list exports. It reads one reply only, and so sees the first one.
func TestGoNBD(t *testing.T) {
	r := newRig(t, nil)
	nc, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	names, err := goclient.List(nc)
	if err != nil || len(names) != 1 || names[0] != "disk" {
		t.Errorf("%q, %v", names, err)
	}
}

// TestConstants compares the numbers that go-nbd knows too with ours.
func TestConstants(t *testing.T) {
	for ours, theirs := range map[uint64]uint64{
		nbdproto.MagicInit: protocol.NEGOTIATION_MAGIC_OLDSTYLE, nbdproto.MagicOption: protocol.NEGOTIATION_MAGIC_OPTION,
		nbdproto.MagicOptionReply: protocol.NEGOTIATION_MAGIC_REPLY, nbdproto.MagicRequest: uint64(protocol.TRANSMISSION_MAGIC_REQUEST),
		nbdproto.MagicSimpleReply: uint64(protocol.TRANSMISSION_MAGIC_REPLY), nbdproto.RepErrUnsup: uint64(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED),
		nbdproto.RepErrUnknown: uint64(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN), nbdproto.OptGo: uint64(protocol.NEGOTIATION_ID_OPTION_GO),
		nbdproto.FlagCanMultiConn: uint64(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN),
	} {
		if ours != theirs {
			t.Errorf("%#x, go-nbd has %#x", ours, theirs)
		}
	}
}
