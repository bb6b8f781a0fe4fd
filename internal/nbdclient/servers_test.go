package nbdclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// image writes a sparse file of 1 MiB with data in [0, 64 KiB) and [512 KiB, 516 KiB).
func image(t testing.TB) (path string, data []byte) {
	t.Helper()
	data = make([]byte, 1<<20)
	copy(data, content(0, 64<<10))
	copy(data[512<<10:], content(77, 4<<10))
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	f.WriteAt(data[:64<<10], 0)
	if _, err := f.WriteAt(data[512<<10:516<<10], 512<<10); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// start runs a server until the test ends, and waits for its socket.
func start(t testing.TB, socket, program string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed: tools/ci/install", program)
	}
	cmd := exec.Command(program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil { // the socket is there before anybody listens
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", program, out.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen", program)
		}
	}
}

// readAll checks everything that can be read through c against data, many requests at once.
func readAll(t *testing.T, c *Client, data []byte) {
	t.Helper()
	got := make([]byte, len(data))
	const piece = 12 << 10
	var wg sync.WaitGroup
	for off := 0; off < len(got); off += piece {
		wg.Go(func() {
			if err := c.ReadAt(within(t), got[off:min(off+piece, len(got))], int64(off)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(got, data) {
		t.Error("wrong data")
	}
}

// checkExtents walks the block status and demands that holes read as zeros and that the image has some.
func checkExtents(t *testing.T, c *Client, data []byte) {
	t.Helper()
	holes := int64(0)
	for off := int64(0); off < int64(len(data)); {
		extents, err := c.BlockStatus(within(t), off, int64(len(data))-off, nil)
		if err != nil || len(extents) == 0 {
			t.Fatalf("block status at %d: %v, %v", off, extents, err)
		}
		for _, e := range extents {
			if e.Zero {
				holes += e.Length
				if len(bytes.Trim(data[off:off+e.Length], "\x00")) > 0 {
					t.Errorf("%d bytes at %d are not zeros", e.Length, off)
				}
			}
			off += e.Length
		}
	}
	if holes < 800<<10 {
		t.Errorf("only %d bytes told as zeros", holes)
	}
}

func dial(t testing.TB, uri string) *Client {
	t.Helper()
	target, err := ParseURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	c, err := target.Dial(within(t), ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestNbdkit(t *testing.T) {
	path, data := image(t)
	socket := filepath.Join(t.TempDir(), "s")
	start(t, socket, "nbdkit", "-f", "--exit-with-parent", "-r", "-U", socket, "--filter=error", "file", path, "error-pread-rate=100%", "error-file="+socket+".fail")
	c := dial(t, "nbd+unix:///?socket="+socket)
	if i := c.Info(); i.Size != 1<<20 || !i.ReadOnly() || !i.Structured || !i.Allocation || i.Extended {
		t.Errorf("%+v", i)
	}
	readAll(t, c, data)
	checkExtents(t, c, data)
	if err := os.WriteFile(socket+".fail", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadAt(within(t), make([]byte, 512), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("a failing read: %v", err)
	}
	os.Remove(socket + ".fail")
	readAll(t, c, data)
}

func TestQemuNBD(t *testing.T) {
	path, data := image(t)
	socket := filepath.Join(t.TempDir(), "s")
	start(t, socket, "qemu-nbd", "-t", "-r", "-f", "raw", "-e", "4", "-x", "vm", "-D", "memory of vm", "-k", socket, path)
	c := dial(t, "nbd+unix:///vm?socket="+socket)
	if i := c.Info(); i.Size != 1<<20 || i.Description != "memory of vm" || !i.Allocation {
		t.Errorf("%+v", i)
	}
	readAll(t, c, data)
	checkExtents(t, c, data)

	target, _ := ParseURI("nbd+unix:///other?socket=" + socket)
	if _, err := target.Dial(within(t), ClientOptions{}); !errors.Is(err, ErrUnknownExport) {
		t.Errorf("another export: %v", err)
	}
	// What the kernel would get.
	target.Export = "vm"
	info, err := target.Connect(within(t), Options{})
	if err != nil || info.Structured || info.Allocation {
		t.Fatalf("%+v, %v", info, err)
	}
	simple := NewClient(info, ClientOptions{})
	defer simple.Close()
	readAll(t, simple, data)
}

func TestTLS(t *testing.T) {
	if _, err := exec.LookPath("certtool"); err != nil {
		t.Skip("certtool is not installed: tools/ci/install")
	}
	pki := t.TempDir()
	script := `set -e; cd "$1"
certtool --generate-privkey --key-type=ecdsa --outfile ca-key.pem
printf 'cn=ca\nca\ncert_signing_key\nexpiration_days=2\n' >ca.info
certtool --generate-self-signed --load-privkey ca-key.pem --template ca.info --outfile ca-cert.pem
for who in server client; do
	certtool --generate-privkey --key-type=ecdsa --outfile $who-key.pem
	printf 'cn=%s\ndns_name=localhost\ntls_www_server\ntls_www_client\nsigning_key\nexpiration_days=2\n' $who >$who.info
	certtool --generate-certificate --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem --load-privkey $who-key.pem --template $who.info --outfile $who-cert.pem
done`
	if out, err := exec.Command("bash", "-c", script, "-", pki).CombinedOutput(); err != nil {
		t.Fatalf("certtool: %v: %s", err, out)
	}
	path, data := image(t)
	socket := filepath.Join(t.TempDir(), "s")
	start(t, socket, "nbdkit", "-f", "--exit-with-parent", "-r", "-U", socket, "--tls=require", "--tls-verify-peer", "--tls-certificates="+pki, "file", path)
	c := dial(t, "nbds+unix:///?socket="+socket+"&tls-certificates="+pki)
	if _, ok := c.Info().Conn.(*tls.Conn); !ok {
		t.Error("the connection is not encrypted")
	}
	readAll(t, c, data)
	checkExtents(t, c, data)

	plain, _ := ParseURI("nbd+unix:///?socket=" + socket)
	if _, err := plain.Dial(within(t), ClientOptions{}); !errors.Is(err, ErrTLS) {
		t.Errorf("without TLS: %v", err)
	}
	wrong, _ := ParseURI("nbds+unix:///?socket=" + socket + "&tls-hostname=elsewhere&tls-certificates=" + pki)
	if _, err := wrong.Dial(within(t), ClientOptions{}); !errors.Is(err, ErrTLS) {
		t.Errorf("another host's certificate: %v", err)
	}
	os.Remove(filepath.Join(pki, "client-cert.pem"))
	bare, _ := ParseURI("nbds+unix:///?socket=" + socket + "&tls-certificates=" + pki)
	if c, err := bare.Dial(within(t), ClientOptions{}); err == nil {
		// With TLS 1.3 the server refuses after the handshake.
		err = c.ReadAt(context.Background(), make([]byte, 1), 0)
		c.Close()
		if err == nil {
			t.Error("served without a client's certificate")
		}
	}
}

func TestNobodyThere(t *testing.T) {
	target, _ := ParseURI("nbd+unix:///x?socket=" + filepath.Join(t.TempDir(), "s"))
	if _, err := target.Dial(within(t), ClientOptions{}); !errors.Is(err, ErrDisconnected) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("got %v", err)
	}
}
