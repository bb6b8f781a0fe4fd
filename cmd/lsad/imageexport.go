package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"lsad/internal/config"
	"lsad/server/admin"
)

func imageExportCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME FILE",
		Short: "Write the memory of an image into a file",
		Long: `Write the memory of an image into a file: the bytes of its RAM, one block after the other. What is not
stored is a hole of the file. "-" is standard output, where holes are zeros. A file that is there already is
not overwritten.`,
		Example: `  lsad image export web1 web1.ram
  lsad image export web1 - | sha256sum`,
		Args: takes("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.do(cmd, func(ctx context.Context, c *admin.Client) error {
				if args[1] == "-" {
					return exportTo(ctx, c, args[0], cmd.OutOrStdout())
				}
				written, err := exportFile(ctx, c, args[0], args[1])
				if err != nil {
					return err
				}
				if t.json {
					return printJSON(cmd, map[string]any{"exported": args[0], "file": args[1], "written_bytes": written})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "exported %s to %s, %s written\n", args[0], args[1], size(written))
				return err
			})
		},
	}
}

// exportTo writes all bytes.
func exportTo(ctx context.Context, c *admin.Client, name string, w io.Writer) error {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		return config.Usagef("the memory of a VM is not for a terminal: redirect the output, or name a file")
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

// exportFile makes a sparse file, and nothing if it fails.
func exportFile(ctx context.Context, c *admin.Client, name, path string) (written int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	err = c.ExportImage(ctx, name, f.Truncate, func(off, n int64, from io.Reader) error {
		written += n
		_, err := io.Copy(io.NewOffsetWriter(f, off), from)
		return err
	})
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, errors.Join(err, os.Remove(path))
	}
	return written, nil
}
