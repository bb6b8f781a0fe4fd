package nbd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lsad/internal/nbdproto"
)

// pki is a directory with certificates under the names that libnbd and QEMU expect.
type pki struct {
	dir   string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	until time.Time // of what is issued next, zero for an hour from now
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir()}
	p.ca, p.key = p.issue(t, "ca", "test authority", true)
	p.issue(t, "server", "localhost", false)
	p.issue(t, "client", "alice", false)
	return p
}

// issue writes NAME-cert.pem and NAME-key.pem. The authority signs itself.
func (p *pki) issue(t testing.TB, file, name string, isCA bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: isCA,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if !p.until.IsZero() {
		tmpl.NotAfter = p.until
	}
	parent, signer := p.ca, p.key
	if isCA {
		tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageCertSign, nil
		tmpl.DNSNames, tmpl.IPAddresses = nil, nil
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.writePEM(t, file+"-cert.pem", "CERTIFICATE", der)
	p.writePEM(t, file+"-key.pem", "PRIVATE KEY", keyDER)
	return cert, key
}

func (p *pki) writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(p.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *pki) path(file string) string { return filepath.Join(p.dir, file) }

// use makes the server one with TLS, which wants client certificates.
func (p *pki) use(t testing.TB, m TLSMode) func(*Config, *shelf) {
	return func(cfg *Config, _ *shelf) {
		var err error
		cfg.TLS, err = LoadTLS(p.path("server-cert.pem"), p.path("server-key.pem"), p.path("ca-cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.TLSMode = m
	}
}

func (p *pki) clientConfig(t testing.TB, file string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(p.ca)
	cfg := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if file != "" {
		cert, err := tls.LoadX509KeyPair(p.path(file+"-cert.pem"), p.path(file+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg
}

// startTLS makes the client go on over TLS.
func (c *client) startTLS(cfg *tls.Config) {
	c.t.Helper()
	c.ack(nbdproto.OptStartTLS, nil)
	t := tls.Client(c.nc, cfg)
	if err := t.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.nc = t
}

func TestTLSAllow(t *testing.T) {
	p := newPKI(t)
	r := newRig(t, p.use(t, TLSAllow))
	plain := r.enter(t, structured, "disk")
	plain.ok(req{cmd: nbdproto.CmdRead, n: 4096})

	c := r.dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.ack(nbdproto.OptStructuredReply, nil)
	c.setMeta("disk", "base:allocation")
	if rep := c.option(nbdproto.OptStartTLS, []byte{1}); rep[0].typ != nbdproto.RepErrInvalid {
		t.Errorf("STARTTLS with data: %#x", rep[0].typ)
	}
	c.startTLS(p.clientConfig(t, "client"))
	if rep := c.option(nbdproto.OptStartTLS, nil); rep[0].typ != nbdproto.RepErrInvalid {
		t.Errorf("second STARTTLS: %#x", rep[0].typ)
	}
	// Nothing of what was negotiated in the clear holds.
	if rep := c.option(nbdproto.OptSetMetaContext, metaData("disk", "base:allocation")); rep[0].typ != nbdproto.RepErrInvalid {
		t.Errorf("structured replies outlived STARTTLS: %#x", rep[0].typ)
	}
	c.mode = simple
	c.goTo("disk")
	if c.flags&nbdproto.FlagSendDF != 0 {
		t.Error("DF outlived STARTTLS")
	}
	data := pattern(300<<10, 3)
	c.ok(req{cmd: nbdproto.CmdWrite, off: 5, data: data})
	if a := c.ok(req{cmd: nbdproto.CmdRead, off: 5, n: uint64(len(data))}); string(a.data) != string(data) {
		t.Error("wrong data over TLS")
	}
	info := r.Connections()[1]
	if !info.Client.TLS || info.Client.Name != "alice" || info.Export != "disk" {
		t.Errorf("connection %+v", info)
	}
	if seen := r.shelf.seen[len(r.shelf.seen)-1]; seen != info.Client {
		t.Errorf("the catalog saw %+v", seen)
	}
	c.disconnect()
}

func TestTLSRequire(t *testing.T) {
	p := newPKI(t)
	r := newRig(t, p.use(t, TLSRequire))
	c := r.dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	for _, opt := range []uint32{nbdproto.OptList, nbdproto.OptInfo, nbdproto.OptGo, nbdproto.OptStructuredReply, nbdproto.OptExtendedHeaders, nbdproto.OptListMetaContext, nbdproto.OptSetMetaContext, 99} {
		if rep := c.option(opt, infoData("disk")); rep[0].typ != nbdproto.RepErrTLSReqd {
			t.Errorf("option %d before STARTTLS: %#x", opt, rep[0].typ)
		}
	}
	c.startTLS(p.clientConfig(t, "client"))
	c.ack(nbdproto.OptExtendedHeaders, nil)
	c.mode = extended
	c.goTo("disk")
	c.ok(req{cmd: nbdproto.CmdWrite, data: []byte("secret")})
	c.disconnect()

	c = r.dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.ack(nbdproto.OptAbort, nil)
	c.closed()

	for what, send := range map[string][]byte{
		"EXPORT_NAME in the clear":        append([]byte{0, 0, 0, 1}, option(nbdproto.OptExportName, []byte("disk"))...),
		"a client without fixed newstyle": append([]byte{0, 0, 0, 0}, option(nbdproto.OptList, nil)...),
	} {
		t.Run(what, func(t *testing.T) {
			c := r.dial(t)
			c.read(18)
			c.write(send)
			c.closed()
		})
	}
}

// TestTLSClientCertificate has clients without a certificate, and with one of another authority.
func TestTLSClientCertificate(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	r := newRig(t, p.use(t, TLSRequire))
	stranger := other.clientConfig(t, "client")
	stranger.RootCAs = p.clientConfig(t, "").RootCAs
	for what, cfg := range map[string]*tls.Config{"none": p.clientConfig(t, ""), "foreign": stranger} {
		t.Run(what, func(t *testing.T) {
			c := r.dial(t)
			c.greet(nbdproto.FlagFixedNewstyle)
			c.ack(nbdproto.OptStartTLS, nil)
			tc := tls.Client(c.nc, cfg)
			err := tc.Handshake()
			if err == nil { // with TLS 1.3 the client hears of it later
				_, err = tc.Read(make([]byte, 1))
			}
			if err == nil {
				t.Error("the handshake succeeded")
			}
		})
	}
	eventually(t, "the handshakes to be counted", func() bool { return r.Stats().BadHandshakes == 2 })
}

// TestTLSInjection sends plain text behind STARTTLS: it must not be taken for what came over TLS.
func TestTLSInjection(t *testing.T) {
	p := newPKI(t)
	c := newRig(t, p.use(t, TLSAllow)).dial(t)
	c.greet(nbdproto.FlagFixedNewstyle)
	c.write(append(option(nbdproto.OptStartTLS, nil), option(nbdproto.OptStructuredReply, nil)...))
	if rep := c.optReplies(nbdproto.OptStartTLS); rep[0].typ != nbdproto.RepAck {
		t.Fatalf("STARTTLS: %#x", rep[0].typ)
	}
	if err := tls.Client(c.nc, p.clientConfig(t, "client")).Handshake(); err == nil {
		t.Error("the handshake succeeded")
	}
}

func TestLoadTLSErrors(t *testing.T) {
	p := newPKI(t)
	cert, key := p.path("server-cert.pem"), p.path("server-key.pem")
	for _, f := range [][3]string{
		{p.path("nope"), key, ""}, {cert, p.path("nope"), ""}, {cert, p.path("client-key.pem"), ""},
		{cert, key, p.path("nope")}, {cert, key, key},
	} {
		if _, err := LoadTLS(f[0], f[1], f[2]); err == nil {
			t.Errorf("LoadTLS(%q) succeeded", f)
		}
	}
	if _, err := New(Config{Catalog: &shelf{}, TLSMode: TLSRequire}); err == nil {
		t.Error("a server that requires TLS and has none")
	}
}

// holdBack is a connection that may keep what is written, to send it in one piece.
type holdBack struct {
	net.Conn
	on   bool
	held []byte
}

func (h *holdBack) Write(p []byte) (int, error) {
	if !h.on {
		return h.Conn.Write(p)
	}
	h.held = append(h.held, p...)
	return len(p), nil
}

// TestTLSBatches checks that requests in many TLS records are handled together.
func TestTLSBatches(t *testing.T) {
	p := newPKI(t)
	r := newRig(t, p.use(t, TLSRequire))
	c := r.dial(t)
	below := &holdBack{Conn: c.nc}
	c.nc = below
	c.greet(nbdproto.FlagFixedNewstyle)
	c.startTLS(p.clientConfig(t, "client"))
	c.goTo("disk")
	const n = 64
	below.on = true
	for i := range uint64(n) {
		c.send(req{cmd: nbdproto.CmdWrite, cookie: i, off: i * 512, data: pattern(512, byte(i))})
	}
	below.Conn.Write(below.held)
	for i := range uint64(n) {
		c.answer(req{cmd: nbdproto.CmdWrite, cookie: i})
	}
	if batches, writes := r.shelf.disks["disk"].Batches(); writes != n || batches > n/4 {
		t.Errorf("%d writes in %d batches", writes, batches)
	}
}
