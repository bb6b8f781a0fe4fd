package config

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// maxUnixPath is how long the path of a unix socket may be, in bytes: the kernel's
// sun_path has 108 with the terminating zero (unix(7)).
const maxUnixPath = 107

// Addr is where to listen or to connect: "unix:PATH" or "HOST:PORT".
type Addr struct {
	Network string // "unix" or "tcp"
	Address string // the path, or HOST:PORT
}

// ParseAddr reads an address and checks its form.
func ParseAddr(s string) (Addr, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case path == "":
			return Addr{}, Usagef("address %q: the path of the socket is missing (unix:PATH)", s)
		case len(path) > maxUnixPath:
			return Addr{}, Usagef("address %q: a socket's path may have %d bytes, this one has %d; use a shorter or a relative path", s, maxUnixPath, len(path))
		case strings.ContainsRune(path, 0):
			return Addr{}, Usagef("address %q: a path cannot contain a zero byte", s)
		}
		return Addr{"unix", path}, nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return Addr{}, Usagef("address %q: want unix:PATH or HOST:PORT", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return Addr{}, Usagef("address %q: the port must be a number from 0 to 65535", s)
	}
	return Addr{"tcp", s}, nil
}

// String is the form that ParseAddr reads.
func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// Local says whether only this machine can reach the address: a unix socket, or
// a host all of whose addresses are loopback.
func (a Addr) Local(ctx context.Context) (bool, error) {
	if a.Network == "unix" {
		return true, nil
	}
	host, _, err := net.SplitHostPort(a.Address)
	if err != nil || host == "" {
		return false, err // no host: every interface
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false, Usagef("address %q: %v", a.Address, err)
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			return false, nil
		}
	}
	return len(ips) > 0, nil
}

// URI is the NBD URI of an export at the address, as nbdinfo, nbdcopy, qemu and fio take it
// (doc/uri.md of the NBD project).
func (a Addr) URI(export string, tls bool) string {
	scheme := "nbd"
	if tls {
		scheme = "nbds"
	}
	if a.Network == "unix" {
		return scheme + "+unix:///" + url.PathEscape(export) + "?socket=" + escapePath(a.Address)
	}
	return scheme + "://" + a.Address + "/" + url.PathEscape(export)
}

// escapePath escapes a path for a query and leaves its slashes readable.
func escapePath(p string) string {
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(p), "+", "%20"), "%2F", "/")
}
