package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"lsad/internal/config"
)

// checkExposure refuses to serve beyond this machine what nobody could tell from an attack: unless
// it is encrypted, or the user insists.
func checkExposure(ctx context.Context, what string, a config.Addr, encrypted, insecure bool) error {
	local, err := a.Local(ctx)
	if err != nil {
		return err
	}
	if local || encrypted || insecure {
		return nil
	}
	return config.Usagef("%s %v: can be reached from other machines, and without TLS anyone there could use it; "+
		"give --tls-cert and --tls-key, listen on 127.0.0.1 or a unix socket, or allow it with --insecure", what, a)
}

// listen opens a listener. A unix socket that a dead server left behind is replaced; gid is the group that may
// use it, or negative.
func listen(ctx context.Context, what string, a config.Addr, gid int) (net.Listener, error) {
	if a.Network == "unix" {
		if err := removeStale(a.Address); err != nil {
			return nil, fmt.Errorf("%s %v: %w", what, a, err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, family(a), a.Address)
	if err != nil {
		return nil, fmt.Errorf("%s %v: %w%s", what, a, bare(err), advice(a, err))
	}
	if a.Network == "unix" {
		if err := shareSocket(a.Address, gid); err != nil {
			return nil, errors.Join(fmt.Errorf("%s %v: %w", what, a, err), l.Close())
		}
	}
	return l, nil
}

// family keeps 0.0.0.0 to what it says: listening there for "tcp" takes IPv6 as well, for which a firewall may have
// other rules.
func family(a config.Addr) string {
	if host, _, err := net.SplitHostPort(a.Address); err == nil && a.Network == "tcp" {
		if ip := net.ParseIP(host); ip != nil && ip.To4() != nil {
			return "tcp4"
		}
	}
	return a.Network
}

// bare is a listener's error without what the caller says already.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func advice(a config.Addr, err error) string {
	switch {
	case errors.Is(err, errInUse) && a.Network == "tcp":
		return "; another program listens there, or this one by another address that it was given: choose another port, or stop what has it"
	case errors.Is(err, fs.ErrPermission) && a.Network == "tcp":
		return "; ports below 1024 are for root: choose another port"
	}
	return ""
}

// removeStale removes a socket that nobody listens on. It fails if somebody does, or if the path is
// something else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file of that name that is not a socket: remove it or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(errors.New("another program listens there, or this one by another address that it was given: choose another path, or stop what has it"), c.Close())
	}
	if !errors.Is(err, errRefused) {
		return bare(err)
	}
	return os.Remove(path)
}

// shareSocket makes a socket private to its owner and a group. It was made with the umask of serve, so that
// nobody else could connect before.
func shareSocket(path string, gid int) error {
	mode := fs.FileMode(0o600)
	if gid >= 0 {
		mode = 0o660
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}
