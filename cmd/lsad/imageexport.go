package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/server/admin"
)

func imageExportCommand(t *target) *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "export NAME [FILE] [--state FILE]",
		Short: "Write the memory or the device state of an image into a file",
		Long: `Write the memory of an image into a file: the bytes of its RAM, one block after the other. What is not
stored is a hole of the file. "-" is standard output, where holes are zeros. With --state the VMM's device
state is written, beside the memory or alone; one of the two may be "-". A file that is there already is not
overwritten.`,
		Example: `  lsad image export web1 web1.ram
  lsad image export web1 web1.ram --state web1.vmstate
  lsad image export web1 - | sha256sum`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && state == "" {
				return config.Usagef("FILE is missing: where the memory goes, or --state for the device state alone")
			}
			memory := len(args) == 2 && args[1] == "-"
			if memory && state == "-" {
				return config.Usagef("the memory and the device state cannot both go to standard output")
			}
			report := cmd.OutOrStdout()
			if memory || state == "-" {
				report = cmd.ErrOrStderr() // standard output is for what is exported, and nothing else
			}
			return t.do(cmd, func(outer context.Context, c *admin.Client) error {
				// Ctrl-C ends the export in order, so that newFile takes away what is not whole.
				ctx, stop := signal.NotifyContext(outer, os.Interrupt, unix.SIGTERM)
				defer stop()
				if state != "" {
					if err := t.exportState(ctx, cmd, report, c, args[0], state); err != nil {
						return err
					}
				}
				if len(args) == 1 {
					return nil
				}
				return t.exportMemory(ctx, cmd, report, c, args[0], args[1])
			})
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return takes("NAME", "FILE")(cmd, args)
		}
		return takes("NAME")(cmd, args)
	}
	cmd.Flags().StringVar(&state, "state", "", "`FILE` for the VMM's device state")
	return cmd
}

func (t *target) exportMemory(ctx context.Context, cmd *cobra.Command, report io.Writer, c *admin.Client, name, path string) error {
	if path == "-" {
		return exportTo(ctx, c, name, cmd.OutOrStdout())
	}
	var written int64
	err := newFile(path, func(f *os.File) error {
		return c.ExportImage(ctx, name, f.Truncate, func(off, n int64, from io.Reader) error {
			written += n
			_, err := io.Copy(io.NewOffsetWriter(f, off), from)
			return err
		})
	})
	if err != nil {
		return err
	}
	return t.exported(report, "memory", name, path, written)
}

func (t *target) exportState(ctx context.Context, cmd *cobra.Command, report io.Writer, c *admin.Client, name, path string) error {
	if path == "-" {
		out := cmd.OutOrStdout()
		if err := notTerminal(out, "device state"); err != nil {
			return err
		}
		_, err := c.ImageState(ctx, name, out)
		return err
	}
	var written int64
	err := newFile(path, func(f *os.File) (err error) {
		written, err = c.ImageState(ctx, name, f)
		return err
	})
	if err != nil {
		return err
	}
	return t.exported(report, "device state", name, path, written)
}

func (t *target) exported(report io.Writer, what, name, path string, written int64) error {
	if t.json {
		return writeJSON(report, map[string]any{"image": name, "exported": what, "file": path, "written_bytes": written})
	}
	_, err := fmt.Fprintf(report, "exported the %s of %s to %s, %s written\n", what, name, path, size(written))
	return err
}

func notTerminal(w io.Writer, what string) error {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		return config.Usagef("the %s of a VM is not for a terminal: redirect the output, or name a file", what)
	}
	return nil
}

// exportTo writes all bytes.
func exportTo(ctx context.Context, c *admin.Client, name string, w io.Writer) error {
	if err := notTerminal(w, "memory"); err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<20)
	var at, total int64
	err := c.ExportImage(ctx, name,
		func(size int64) error {
			total = size
			return nil
		},
		func(off, n int64, from io.Reader) error {
			if err := writeZeros(out, off-at); err != nil {
				return err
			}
			at = off + n
			_, err := io.Copy(out, from)
			return err
		})
	if err != nil {
		return err
	}
	return errors.Join(writeZeros(out, total-at), out.Flush())
}

func writeZeros(w io.Writer, n int64) error {
	zeros := make([]byte, min(n, 64<<10))
	for n > 0 {
		k, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// newFile makes a file and has it filled; if that fails there is none.
func newFile(path string, fill func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = errors.Join(fill(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
