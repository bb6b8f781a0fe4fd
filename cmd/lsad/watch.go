package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"lsad/server/admin"
)

// errBrokenOff: the command was interrupted while the server worked.
var errBrokenOff = errors.New("broken off")

// watchWork runs do, a long request to the server, and shows on a terminal how far the server says meanwhile that it
// is. far takes that from the server's work, in bytes; with a total of 0 nothing is shown.
func watchWork[T any](ctx context.Context, cmd *cobra.Command, c *admin.Client, verb string,
	far func(admin.Work) (done, total int64), do func(context.Context) (T, error)) (T, error) {
	watched, cancel := context.WithCancel(ctx)
	p := newProgress(cmd.ErrOrStderr(), verb)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case <-tick.C:
			}
			if w, err := c.Work(watched); err == nil {
				p.show(far(w))
			}
		}
	}()
	result, err := do(ctx)
	cancel()
	<-ended
	p.end()
	if err != nil && ctx.Err() != nil {
		err = errBrokenOff
	}
	return result, err
}
