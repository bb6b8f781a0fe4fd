package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"lsad/kvmhook"
	"lsad/server/admin"
)

// workingSet is the order in which to fill, nil if none is known.
func (k *hook) workingSet(cmd *cobra.Command) (*kvmhook.WorkingSet, error) {
	switch {
	case k.record || k.noFill:
		return nil, nil
	case k.order != "":
		text, err := os.ReadFile(k.order)
		if err != nil {
			return nil, fmt.Errorf("working set: %w", err)
		}
		set := new(kvmhook.WorkingSet)
		if err := json.Unmarshal(text, set); err != nil {
			return nil, fmt.Errorf("working set %s: %w", k.order, err)
		}
		return set, nil
	case !k.named():
		return nil, nil
	}
	var set *kvmhook.WorkingSet
	err := k.do(cmd, func(ctx context.Context, c *admin.Client) error {
		w, err := c.WorkingSet(ctx, k.image)
		if len(w.Chunks) > 0 {
			set = &kvmhook.WorkingSet{ChunkBytes: w.ChunkBytes, Chunks: w.Chunks}
		}
		return err
	})
	return set, err
}

// keep stores what was recorded. An interrupt that ended the hook does not keep it from that.
func (k *hook) keep(cmd *cobra.Command, log *slog.Logger, set *kvmhook.WorkingSet) error {
	if len(set.Chunks) == 0 {
		log.Warn("nothing was recorded: the guest touched none of its memory")
		return nil
	}
	if k.order != "" {
		text, err := json.Marshal(set)
		if err == nil {
			err = writeWhole(k.order, text)
		}
		if err != nil {
			return fmt.Errorf("working set: %w", err)
		}
		log.Info("working set recorded", "file", k.order, "chunks", len(set.Chunks))
		return nil
	}
	return k.do(cmd, func(ctx context.Context, c *admin.Client) error {
		kept, err := c.SetWorkingSet(ctx, k.image, admin.WorkingSet{ChunkBytes: set.ChunkBytes, Chunks: set.Chunks})
		if err == nil {
			log.Info("working set recorded", "image", k.image, "chunks", len(set.Chunks), "kept", kept)
		}
		return err
	})
}

// writeWhole replaces a file at once.
func writeWhole(path string, p []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
