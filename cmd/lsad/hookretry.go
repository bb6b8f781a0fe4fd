package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/kvmhook"
)

// Waits between attempts to open the source.
const (
	leastOpenPause = 20 * time.Millisecond
	mostOpenPause  = 2 * time.Second
)

// source opens the source. If a VM waits for it, then as soon as it can be had: failing would help nobody, and systemd
// closes what it keeps once it has given up. It is nil if that VM has ended.
func (k *hook) source(ctx context.Context, cmd *cobra.Command, log *slog.Logger, kept *kvmhook.Kept) (*hookSource, error) {
	if kept == nil {
		return k.open(ctx, cmd, log)
	}
	began, within := time.Now(), ctx
	if k.timeout > 0 {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, k.timeout)
		defer cancel()
	}
	for pause := leastOpenPause; ; pause = min(2*pause, mostOpenPause) {
		src, err := k.open(within, cmd, log)
		switch {
		case err == nil || errors.Is(err, config.ErrUsage):
			return src, err
		case kept.Gone():
			log.Info("the VM has ended")
			return nil, nil
		case pause == leastOpenPause:
			log.Warn("the source cannot be opened: the VM waits, and it is tried again", "source", k.image, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-within.Done():
		}
		switch {
		case ctx.Err() != nil:
			return nil, errors.New("stopped while the VM waits for its source: it goes on if systemd starts the service again")
		case within.Err() != nil:
			return nil, fmt.Errorf("%w: %s: out of reach for %v: %w; the VM waits, and goes on if systemd starts the service again",
				kvmhook.ErrSource, k.image, time.Since(began).Round(time.Millisecond), err)
		}
	}
}
