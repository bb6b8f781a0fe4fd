package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/server/admin"
)

// target is where a command finds the server, and how it prints.
type target struct {
	dir, admin, token string
	json              bool
}

// flags adds the flags of a command that talks to a server, to it and to all below it.
func (t *target) flags(cmd *cobra.Command) {
	fs := cmd.PersistentFlags()
	fs.StringVar(&t.dir, "dir", config.DefaultDir, "data `DIR` of the server")
	fs.StringVar(&t.admin, "admin", "", "talk to the server at `ADDR`, unix:PATH or HOST:PORT of this machine, instead of DIR/"+config.AdminSocket)
	fs.StringVar(&t.token, "http-token", "", "`TOKEN` for changes through HOST:PORT, or @FILE")
	fs.BoolVar(&t.json, "json", false, "print JSON")
}

func (t *target) addr(ctx context.Context) (config.Addr, error) {
	if t.admin == "" {
		return config.ParseAddr("unix:" + filepath.Join(t.dir, config.AdminSocket))
	}
	a, err := config.ParseAddr(t.admin)
	if err != nil {
		return a, config.Usagef("admin: %v", err)
	}
	local, err := a.Local(ctx)
	if err == nil && !local {
		err = config.Usagef("admin %s: not an address of this machine; run the command there (ssh), or use the HTTP API with TLS", t.admin)
	}
	return a, err
}

// lateAfter is how long a command waits for the server before it says so: some take that long, and a server may hang.
const lateAfter = 5 * time.Second

// do calls fn with a client and explains what went wrong if nobody answers.
func (t *target) do(cmd *cobra.Command, fn func(ctx context.Context, c *admin.Client) error) error {
	ctx := cmd.Context()
	a, err := t.addr(ctx)
	if err != nil {
		return err
	}
	token, err := (&config.Config{HTTPToken: t.token}).Token()
	if err != nil {
		return err
	}
	c := admin.NewClient(a.Network, a.Address, token)
	c.LateAfter, c.Late = lateAfter, func(where string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "the server at %s has not answered for %v; waiting on (interrupt to give up)\n", where, lateAfter)
	}
	err = fn(ctx, c)
	switch {
	case !errors.Is(err, admin.ErrNoServer):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; only the server's owner may use it, and the group that lsad serve --group names", err)
	case t.admin != "":
		return fmt.Errorf("%w; is the server running there?", err)
	}
	return fmt.Errorf("%w; start it with: %s serve --dir %s (or name another data directory with --dir)", err, program(), quote(t.dir))
}
