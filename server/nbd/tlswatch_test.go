package nbd

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// later gives files other times than they had, as if some time had passed.
func (p *pki) later(t *testing.T, by time.Duration, files ...string) {
	t.Helper()
	for _, f := range files {
		at := time.Now().Add(by)
		if err := os.Chtimes(p.path(f), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// shakeHands returns the certificate that a server shows, and what it says to the client's.
func shakeHands(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	said := make(chan error, 1)
	go func() {
		defer b.Close()
		s := tls.Server(b, server)
		said <- s.Handshake()
	}()
	c := tls.Client(a, client)
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	go c.Read(make([]byte, 1)) // takes an alert
	if err := <-said; err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

// TestWatchTLS changes the files of a server's TLS while it runs.
func TestWatchTLS(t *testing.T) {
	p := newPKI(t)
	var log bytes.Buffer
	server, err := WatchTLS(p.path("server-cert.pem"), p.path("server-key.pem"), p.path("ca-cert.pem"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	client := p.clientConfig(t, "client")
	shown := func() *x509.Certificate {
		t.Helper()
		cert, err := shakeHands(t, server, client)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := shown()

	renewed, _ := p.issue(t, "server", "localhost", false)
	p.later(t, time.Minute, "server-cert.pem", "server-key.pem")
	if got := shown(); !got.Equal(renewed) || got.Equal(first) {
		t.Error("a renewed certificate is not used")
	}

	old, err := os.ReadFile(p.path("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	half, _ := p.issue(t, "server", "localhost", false)
	key, err := os.ReadFile(p.path("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("server-key.pem"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	p.later(t, 2*time.Minute, "server-cert.pem")
	for range 3 {
		if !shown().Equal(renewed) {
			t.Error("a certificate without its key is used")
		}
	}
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("told %d times of files that cannot be used:\n%s", n, &log)
	}
	if err := os.WriteFile(p.path("server-key.pem"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	p.later(t, 3*time.Minute, "server-key.pem")
	if !shown().Equal(half) {
		t.Error("the key was put beside its certificate, and that is not used")
	}

	if err := os.Remove(p.path("server-cert.pem")); err != nil {
		t.Fatal(err)
	}
	if !shown().Equal(half) {
		t.Error("with its file gone the certificate is not used any more")
	}

	p.until = time.Now().Add(-time.Minute)
	p.issue(t, "server", "localhost", false)
	p.until = time.Time{}
	p.later(t, 4*time.Minute, "server-cert.pem", "server-key.pem")
	if !shown().Equal(half) || !strings.Contains(log.String(), "expired") {
		t.Errorf("an expired certificate is used, or nothing is said:\n%s", &log)
	}

	other := newPKI(t)
	if err := os.Rename(other.path("ca-cert.pem"), p.path("ca-cert.pem")); err != nil {
		t.Fatal(err)
	}
	p.issue(t, "server", "localhost", false)
	p.later(t, 5*time.Minute, "server-cert.pem", "server-key.pem")
	if _, err := shakeHands(t, server, client); err == nil {
		t.Error("a client of an authority that was taken away is let in")
	}
	client.Certificates = other.clientConfig(t, "client").Certificates
	if _, err := shakeHands(t, server, client); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
}
