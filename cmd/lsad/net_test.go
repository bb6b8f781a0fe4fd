package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lsad/internal/config"
)

// TestSocketActivation passes listening sockets as systemd does.
func TestSocketActivation(t *testing.T) {
	needTool(t, "nbdinfo", "sh")
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"n.sock", "a.sock"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	h, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	f, err := h.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files = append(files, f)

	// A client that connects before the server is there waits for it. LISTEN_PID is the server's own.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, lsadBinary, "serve"}, small...)...)
	cmd.ExtraFiles = files
	p := launch(t, dir, []string{"LISTEN_FDS=3", "LISTEN_FDNAMES=nbd:admin:http"}, cmd)
	mustSh(t, dir, "nbdinfo --size 'nbd+unix:///vol0?socket=n.sock'")
	must(t, dir, "volume", "list", "--admin=unix:a.sock")
	must(t, dir, "volume", "list") // the socket in the data directory is there as well
	get(t, "http://"+h.Addr().String()+"/metrics")
	s := p.status()
	if len(s.Listen.NBD) != 1 || len(s.Listen.HTTP) != 1 || len(s.Listen.Admin) != 2 {
		t.Errorf("listening at %+v", s.Listen)
	}
	p.stop()
	if _, err := os.Stat(filepath.Join(dir, "n.sock")); err != nil {
		t.Errorf("the socket that systemd keeps is gone: %v", err)
	}
	// A client of libnbd may start the server itself. Its socket has no name.
	out := mustSh(t, dir, "nbdinfo --size -- [ "+lsadBinary+" serve "+strings.Join(small, " ")+" ]")
	if strings.TrimSpace(out) == "" {
		t.Errorf("a server that nbdinfo starts says %q", out)
	}
	r := lsadEnv(t, dir, []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=ndb"}, files[:1])
	if r.code != 1 || !strings.Contains(r.stderr, `named "ndb"`) {
		t.Errorf("a socket with a wrong name: %+v", r)
	}
}

// lsadEnv runs serve as systemd would, to its end.
func lsadEnv(t *testing.T, dir string, env []string, files []*os.File) result {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve --http=none`, lsadBinary)
	cmd.ExtraFiles = files
	p := launch(t, dir, env, cmd)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
	}
	return result{p.stdout(), p.stderr(), cmd.ProcessState.ExitCode()}
}

func TestWatchdog(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, dir, []string{"WATCHDOG_USEC=100000"}, exec.Command(lsadBinary, append([]string{"serve"}, small...)...))
	p.waitNotify("READY=1")
	p.waitNotify("WATCHDOG=1")
	p.waitNotify("WATCHDOG=1")
	p.stop()
}

// authority makes certificates as a test's clients and servers need them, in dir: ca-cert.pem, server-cert.pem,
// server-key.pem, client-cert.pem and client-key.pem, the names that libnbd looks for.
func authority(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := newKey(t)
	der := sign(t, ca, ca, caKey, caKey)
	writePEM(t, dir, "ca-cert.pem", "CERTIFICATE", der)
	for i, name := range []string{"server", "client"} {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name + " of this test"},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		key := newKey(t)
		writePEM(t, dir, name+"-cert.pem", "CERTIFICATE", sign(t, leaf, ca, key, caKey))
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, dir, name+"-key.pem", "PRIVATE KEY", keyDER)
	}
	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return pool
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t *testing.T, dir, name, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTLS serves beyond this machine, which takes TLS, with certificates of clients required.
func TestTLS(t *testing.T) {
	needTool(t, "nbdinfo", "nbdcopy")
	dir := t.TempDir()
	pool := authority(t, filepath.Join(dir, "pki"))
	p := serveIn(t, dir, append(small, "--nbd=0.0.0.0:0", "--nbd=unix:lsad-data/nbd.sock", "--http=0.0.0.0:0",
		"--tls-cert=pki/server-cert.pem", "--tls-key=pki/server-key.pem", "--tls-client-ca=pki/ca-cert.pem")...)
	s := p.status()
	_, port, _ := net.SplitHostPort(s.Listen.NBD[0])
	uri := func(scheme, query string) string {
		return "'" + scheme + "://localhost:" + port + "/vol0" + query + "'"
	}
	mustSh(t, dir, "nbdinfo "+uri("nbds", "?tls-certificates=pki"))
	mustSh(t, dir, "head -c 1000000 /dev/urandom > in; nbdcopy in "+uri("nbds", "?tls-certificates=pki")+"; nbdcopy "+uri("nbds", "?tls-certificates=pki")+" out; cmp -n 1000000 in out")
	mustSh(t, dir, "nbdinfo 'nbds+unix:///vol0?socket=lsad-data/nbd.sock&tls-certificates=pki'")
	if out, err := sh(t, dir, "nbdinfo "+uri("nbd", "")); err == nil {
		t.Errorf("a client without TLS got in: %s", out)
	}
	mustSh(t, dir, "mkdir bare && cp pki/ca-cert.pem bare")
	if out, err := sh(t, dir, "nbdinfo "+uri("nbds", "?tls-certificates=bare")); err == nil {
		t.Errorf("a client without a certificate got in: %s", out)
	}
	httpsOnly(t, s.Listen.HTTP[0], pool, filepath.Join(dir, "pki"))
	if !strings.Contains(p.stdout(), "nbds://localhost:"+port) || !strings.Contains(p.stdout(), "https://") {
		t.Errorf("what it prints has no TLS:\n%s", p.stdout())
	}
	p.stop()
}

// httpsOnly fails unless the address answers over TLS, to who has a certificate, and not otherwise.
func httpsOnly(t *testing.T, addr string, pool *x509.CertPool, pki string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	cert, err := tls.LoadX509KeyPair(filepath.Join(pki, "client-cert.pem"), filepath.Join(pki, "client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}}}
	r, err := c.Get("https://localhost:" + port + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); string(body) != "ok\n" {
		t.Errorf("/healthz over TLS: %q", body)
	}
	if r, err := http.Get("http://localhost:" + port + "/healthz"); err == nil {
		if r.Body.Close(); r.StatusCode == http.StatusOK {
			t.Error("HTTP beyond this machine is not encrypted")
		}
	}
}

func TestInsecure(t *testing.T) {
	needTool(t, "nbdinfo")
	dir := t.TempDir()
	p := serveIn(t, dir, append(small, "--nbd=:0", "--http=:0", "--insecure")...)
	_, port, _ := net.SplitHostPort(p.status().Listen.NBD[0])
	mustSh(t, dir, "nbdinfo --size nbd://localhost:"+port)
	p.stop()
}

// TestWildcard holds that 0.0.0.0 is every address of IPv4, and none of IPv6.
func TestWildcard(t *testing.T) {
	for address, want := range map[string]string{"0.0.0.0:0": "0.0.0.0", "127.0.0.1:0": "127.0.0.1", ":0": "::"} {
		a, err := config.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		l, err := listen(t.Context(), "nbd", a, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if host, _, _ := net.SplitHostPort(l.Addr().String()); host != want {
			t.Errorf("%s listens on %s, not %s", address, host, want)
		}
	}
}
