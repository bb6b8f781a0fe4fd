package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"lsad/tools/guest/wire"
)

// mounts are what programs expect of a running system.
var mounts = []struct{ source, target, fstype string }{
	{"proc", "/proc", "proc"},
	{"sysfs", "/sys", "sysfs"},
	{"devtmpfs", "/dev", "devtmpfs"},
	{"tmpfs", "/dev/shm", "tmpfs"},
	{"tmpfs", "/run", "tmpfs"},
	{"tmpfs", "/tmp", "tmpfs"},
	{"debugfs", "/sys/kernel/debug", "debugfs"},
}

// setup mounts the kernel's file systems, loads the modules and runs the
// configured set-up script. The Config is returned even if some of it failed.
func setup() (wire.Config, error) {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return wire.Config{}, err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, 0, ""); err != nil {
			return wire.Config{}, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	cfg, err := readConfig()
	if err != nil {
		return cfg, err
	}
	for _, m := range cfg.Modules {
		if err := loadModule(m); err != nil {
			return cfg, err
		}
	}
	if cfg.Setup == "" {
		return cfg, nil
	}
	out, err := exec.Command("/bin/sh", "-ec", cfg.Setup).CombinedOutput()
	if err != nil {
		return cfg, fmt.Errorf("set-up script: %w: %s", err, out)
	}
	return cfg, nil
}

func loadModule(m wire.Module) error {
	f, err := os.Open(m.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), m.Params, 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load module %s %s: %w", m.Path, m.Params, err)
	}
	// The initramfs is memory; a loaded module's file is of no further use.
	return os.Remove(m.Path)
}
