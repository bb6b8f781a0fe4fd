// Package memguest runs small Linux guests under QEMU's software emulation, whose memory tests and benchmarks save,
// restore and move: the guest checks all of it, round after round, and says so on its serial port.
//
// A [Kit] is what guests are made of, a kernel and an initramfs with the program in the directory agent. A [VM] is
// one QEMU, which boots the guest or waits for one to come in. It owns the process, its monitor's socket, and a
// goroutine that reads the guest's lines; [VM.Close] ends all of them. VM.mu guards the lines.
package memguest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"lsad/tools/guest"
)

// Kit is what guests boot from.
type Kit struct {
	Kernel    string
	Initramfs string
}

// Make builds a kit in dir. The error wraps guest.ErrUnavailable if this machine cannot run guests.
func Make(ctx context.Context, dir string) (*Kit, error) {
	for _, tool := range []string{"qemu-system-x86_64", "cpio"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: %s is not installed", guest.ErrUnavailable, tool)
		}
	}
	kernel, err := guest.Prepare(ctx, guest.DefaultSeries)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	if err := guest.BuildGo(ctx, "lsad/tools/guest/memguest/agent", filepath.Join(root, "init")); err != nil {
		return nil, err
	}
	k := &Kit{Kernel: kernel.Image, Initramfs: filepath.Join(dir, "initramfs")}
	archive, err := os.Create(k.Initramfs)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	cmd := exec.CommandContext(ctx, "cpio", "--quiet", "-o", "-H", "newc")
	cmd.Dir, cmd.Stdin, cmd.Stdout = root, bytes.NewBufferString("init\n"), archive
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cpio: %w", err)
	}
	return k, nil
}
