package nbd

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// WatchTLS is LoadTLS for a server that goes on when its certificate is renewed: each handshake looks whether the files
// were changed, and reads them again if so. Files that cannot be used, since they do not fit together yet or the
// certificate has expired, change nothing; that is logged once. Sessions are not resumed, so that an authority
// that is taken from the list counts for nothing at once.
func WatchTLS(certFile, keyFile, clientCA string, log *slog.Logger) (*tls.Config, error) {
	w := &tlsWatch{files: [3]string{certFile, keyFile, clientCA}, log: log}
	w.seen = w.look()
	var err error
	if w.now, err = w.load(); err != nil {
		return nil, err
	}
	own := w.now.Clone()
	own.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.current(), nil }
	return own, nil
}

// tlsWatch is the files of a TLS configuration. mu is held while they are read, which is rare.
type tlsWatch struct {
	files [3]string // certificate, key and, if not empty, authorities of clients
	log   *slog.Logger

	mu   sync.Mutex
	now  *tls.Config
	seen [3]os.FileInfo // when they were read last; nil for one that is not there
}

// look finds out which files there are.
func (w *tlsWatch) look() (seen [3]os.FileInfo) {
	for i, name := range w.files {
		if info, err := os.Stat(name); err == nil {
			seen[i] = info
		}
	}
	return seen
}

func (w *tlsWatch) load() (*tls.Config, error) {
	cfg, err := LoadTLS(w.files[0], w.files[1], w.files[2])
	if err != nil {
		return nil, err
	}
	cfg.SessionTicketsDisabled = true
	return cfg, nil
}

// current is the configuration by the newest files that can be used.
func (w *tlsWatch) current() *tls.Config {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.look()
	if sameFiles(seen, w.seen) {
		return w.now
	}
	w.seen = seen
	next, err := w.load()
	if err == nil {
		if leaf := next.Certificates[0].Leaf; time.Now().After(leaf.NotAfter) {
			err = fmt.Errorf("TLS certificate %s: it expired on %s", w.files[0], leaf.NotAfter.Format(time.DateOnly))
		}
	}
	if err != nil {
		w.log.Error("the files for TLS were changed and cannot be used; those from before go on", "error", err)
		return w.now
	}
	w.now = next
	w.log.Info("read the files for TLS again", "certificate", w.files[0], "expires", next.Certificates[0].Leaf.NotAfter)
	return w.now
}

func sameFiles(a, b [3]os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && !(os.SameFile(a[i], b[i]) && a[i].ModTime().Equal(b[i].ModTime()) && a[i].Size() == b[i].Size()) {
			return false
		}
	}
	return true
}
