package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"lsad/tools/guest/wire"
)

const (
	systemRoot = "/sysroot"
	// agentPath and agentUnit are in memory: they are no part of the system.
	agentPath = "/run/guest/agent"
	agentUnit = "/run/systemd/system/guest-agent.service"
	agentWant = "/run/systemd/system/sysinit.target.wants/guest-agent.service"
)

// agentService runs the agent from early on and until the very end, so that the
// host can watch all of a start and of a shutdown.
const agentService = `[Unit]
Description=Agent of the guest harness
DefaultDependencies=no
[Service]
ExecStart=` + agentPath + `
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
OOMScoreAdjust=-1000
`

// enterSystem makes the guest an installed system: its root file system takes the
// place of the initramfs, and its init that of this process. It returns if that
// fails.
func enterSystem(cfg wire.Config) error {
	if err := os.Mkdir(systemRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(cfg.System.Device, systemRoot, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the system on %s: %w", cfg.System.Device, err)
	}
	for _, name := range cfg.System.Files {
		if err := copyFile(name, filepath.Join(systemRoot, name)); err != nil {
			return fmt.Errorf("copy into the system: %w", err)
		}
	}
	if err := installAgent(cfg.Env); err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	if err := unix.Unmount("/tmp", 0); err != nil {
		return fmt.Errorf("unmount /tmp: %w", err)
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(dir, filepath.Join(systemRoot, dir), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s into the system: %w", dir, err)
		}
	}
	err := unix.Exec("/bin/busybox", []string{"switch_root", systemRoot, "/sbin/init"}, []string{"PATH=/bin"})
	return fmt.Errorf("enter the system: %w", err)
}

// installAgent makes the agent a service.
func installAgent(env []string) error {
	if err := copyFile("/init", agentPath); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(agentWant), 0o755); err != nil {
		return err
	}
	var unit strings.Builder
	unit.WriteString(agentService)
	for _, v := range env {
		fmt.Fprintf(&unit, "Environment=%q\n", v)
	}
	if err := os.WriteFile(agentUnit, []byte(unit.String()), 0o644); err != nil {
		return err
	}
	return os.Symlink(agentUnit, agentWant)
}

// copyFile copies a file with its permissions.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
