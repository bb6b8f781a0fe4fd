// Command lsad is the storage server and the commands that administer it.
//
// This package wires the parts together: settings (internal/config), devices (internal/blockdev), the array
// (lsa), its garbage collection (gc), the NBD server (server/nbd) and the administration (server/admin). None
// of them knows of the others; the adapters between them are here (catalog.go, backend.go, collector.go).
//
// serve owns the data directory: it holds the lock on DIR/lock from before it looks at anything else in
// there until everything is closed. Every other command but check and dump talks to a running server.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"lsad/internal/config"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDestination = 3 // failed, and the VM that was to be moved is at its destination, or may be
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes a command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	case errors.Is(err, config.ErrUsage):
		fmt.Fprintf(stderr, "lsad: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "lsad: %v\n", err)
	return exitCodeOf(err)
}

// errReported is the error of a command that has said already what is wrong.
var errReported = errors.New("failed")
