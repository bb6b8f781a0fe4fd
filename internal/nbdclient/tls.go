package nbdclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// LoadTLS reads a client's certificates from a directory under the names that libnbd and QEMU use: ca-cert.pem, the
// authorities that a server must be signed by, and, where the server asks for them, client-cert.pem and
// client-key.pem. The server's certificate must be for hostname. Errors are ErrTLS.
func LoadTLS(dir, hostname string) (*tls.Config, error) {
	authorities := filepath.Join(dir, "ca-cert.pem")
	pem, err := os.ReadFile(authorities)
	if err != nil {
		return nil, fmt.Errorf("%w authorities: %w", ErrTLS, err)
	}
	cfg := &tls.Config{ServerName: hostname, MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w authorities: %s holds no certificate in PEM form", ErrTLS, authorities)
	}
	certFile, keyFile := filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem")
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("%w certificate %s with key %s: %w", ErrTLS, certFile, keyFile, err)
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}
