package nbdclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"lsad/internal/nbdproto"
)

// DefaultPort is the port that IANA registered for NBD.
const DefaultPort = "10809"

// maxUnixPath is how long the path of a unix socket may be, in bytes: the kernel's sun_path has 108 with the
// terminating zero (unix(7)).
const maxUnixPath = 107

// Target is what an NBD URI names.
type Target struct {
	Network  string // "tcp" or "unix"
	Address  string // HOST:PORT, or the path of the socket
	Export   string
	TLS      bool
	CertDir  string // with ca-cert.pem, client-cert.pem, client-key.pem; "" for the system's authorities
	Hostname string // that the server's certificate must be for
}

// ParseURI reads nbd://HOST[:PORT]/EXPORT, nbds://... (the same with TLS), nbd+unix:///EXPORT?socket=PATH and
// nbds+unix://.... Two more parameters are those of libnbd: tls-certificates=DIR and tls-hostname=NAME. Any other is
// refused: it might have been meant to protect something. Errors are ErrURI.
func ParseURI(s string) (Target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, fmt.Errorf("%w %q: %w", ErrURI, s, err)
	}
	t := Target{Export: strings.TrimPrefix(u.Path, "/"), TLS: strings.HasPrefix(u.Scheme, "nbds")}
	fail := func(format string, args ...any) (Target, error) {
		return Target{}, fmt.Errorf("%w %q: %s", ErrURI, s, fmt.Sprintf(format, args...))
	}
	socket := ""
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("%v", err)
	}
	for key, values := range query {
		to := map[string]*string{"socket": &socket, "tls-certificates": &t.CertDir, "tls-hostname": &t.Hostname}[key]
		if to == nil {
			return fail("parameter %q is not known; there are socket, tls-certificates and tls-hostname", key)
		}
		if len(values) != 1 || values[0] == "" {
			return fail("parameter %q needs one value", key)
		}
		*to = values[0]
	}
	switch {
	case u.User != nil || u.Fragment != "":
		return fail("user names and fragments have no meaning here")
	case len(t.Export) > nbdproto.MaxString:
		return fail("the export's name has %d bytes, %d are possible", len(t.Export), nbdproto.MaxString)
	case !t.TLS && (t.CertDir != "" || t.Hostname != ""):
		return fail("certificates are for nbds: only")
	}
	switch u.Scheme {
	case "nbd", "nbds":
		if u.Hostname() == "" || socket != "" {
			return fail("want %s://HOST[:PORT]/EXPORT (for a unix socket %s+unix:///EXPORT?socket=PATH)", u.Scheme, u.Scheme)
		}
		port := u.Port()
		if port == "" {
			port = DefaultPort
		}
		t.Network, t.Address = "tcp", net.JoinHostPort(u.Hostname(), port)
		if t.Hostname == "" {
			t.Hostname = u.Hostname()
		}
	case "nbd+unix", "nbds+unix":
		if socket == "" || u.Host != "" {
			return fail("want %s:///EXPORT?socket=PATH", u.Scheme)
		}
		if len(socket) > maxUnixPath {
			return fail("a socket's path may have %d bytes, this one has %d", maxUnixPath, len(socket))
		}
		t.Network, t.Address = "unix", socket
		if t.TLS && t.Hostname == "" {
			t.Hostname = "localhost"
		}
	default:
		return fail("the scheme must be nbd, nbds, nbd+unix or nbds+unix")
	}
	return t, nil
}

// IsURI says whether s is meant as an NBD URI.
func IsURI(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && (strings.HasPrefix(scheme, "nbd"))
}

// String names the target in messages.
func (t Target) String() string {
	s := fmt.Sprintf("export %q at %s", t.Export, t.Address)
	if t.TLS {
		s += " (TLS)"
	}
	return s
}

// dialTimeout bounds connecting and negotiating, each.
const dialTimeout = 10 * time.Second

// Connect connects and negotiates. Options' Export and TLS are filled in from the target; a TLS that is set already
// stays. Both steps together take at most 20 s.
func (t Target) Connect(ctx context.Context, o Options) (Info, error) {
	o.Export = t.Export
	if t.TLS && o.TLS == nil {
		cfg, err := t.tlsConfig()
		if err != nil {
			return Info{}, err
		}
		o.TLS = cfg
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return Info{}, fmt.Errorf("%v: %w", t, unreachable{err})
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	info, err := Handshake(ctx, conn, o)
	if err != nil {
		conn.Close()
		return Info{}, fmt.Errorf("%v: %w", t, err)
	}
	return info, nil
}

// Dial connects, negotiates and returns a client, with extended headers and block status where the server has them.
func (t Target) Dial(ctx context.Context, o ClientOptions) (*Client, error) {
	info, err := t.Connect(ctx, Options{Allocation: true, Extended: true, TLS: o.TLS})
	if err != nil {
		return nil, err
	}
	return NewClient(info, o), nil
}

func (t Target) tlsConfig() (*tls.Config, error) {
	if t.CertDir == "" {
		return &tls.Config{ServerName: t.Hostname, MinVersion: tls.VersionTLS12}, nil
	}
	return LoadTLS(t.CertDir, t.Hostname)
}
