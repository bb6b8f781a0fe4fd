package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/internal/nbdclient"
	"lsad/server/admin"
)

// exportURI is the URI of a volume of the local server, or s itself if it is one.
func (t *target) exportURI(cmd *cobra.Command, s string) (string, error) {
	if nbdclient.IsURI(s) {
		return s, nil
	}
	if strings.Contains(s, "://") {
		return "", config.Usagef("%q: only nbd:// and nbd+unix:// URIs are known, such as nbd://HOST/VOLUME", s)
	}
	socket, err := filepath.Abs(filepath.Join(t.dir, config.NBDSocket))
	if err != nil {
		return "", err
	}
	var uri string
	err = t.do(cmd, func(ctx context.Context, c *admin.Client) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		a, err := nbdAddr(st.Listen.NBD, socket)
		uri = a.URI(s, false)
		return err
	})
	if errors.Is(err, admin.ErrNoServer) && t.admin == "" && answers(socket) {
		return config.Addr{Network: "unix", Address: socket}.URI(s, false), nil
	}
	return uri, err
}

// nbdAddr is the address to use of those on which a server listens: a unix socket, or else the first. socket is the one
// in the data directory: a server tells a relative path as it was told, and may run in another directory.
func nbdAddr(listens []string, socket string) (best config.Addr, err error) {
	for _, text := range listens {
		a, err := config.ParseAddr(text)
		if err != nil {
			return best, err
		}
		if a.Network == "unix" && !filepath.IsAbs(a.Address) {
			if filepath.Base(a.Address) == filepath.Base(socket) {
				a.Address = socket
			} else if a.Address, err = filepath.Abs(a.Address); err != nil {
				return best, err
			}
		}
		if best.Network == "" || a.Network == "unix" && best.Network != "unix" {
			best = reachable(a)
		}
	}
	if best.Network == "" {
		return best, fmt.Errorf("the server listens for NBD nowhere; start it with --nbd unix:PATH or HOST:PORT")
	}
	return best, nil
}

// answers says whether somebody listens at a socket: a server that was killed leaves its socket behind.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
