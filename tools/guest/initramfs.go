package guest

import (
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lsad/tools/guest/wire"
)

// Where things are in the guest.
const (
	toolDir   = "/usr/local/bin"
	moduleDir = "/lib/modules"
)

// networkSetup gives the guest the address that QEMU's user network expects.
const networkSetup = `
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via ` + HostIP

// writeInitramfs writes the guest's file system to path.
func writeInitramfs(ctx context.Context, path string, k *Kernel, o Options) error {
	init, err := agent()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	c := newCpioWriter(f)
	c.device("/dev/console", 5, 1)
	c.bytes("/init", 0o755, init)
	for _, add := range []func() error{
		func() error { return addPrograms(ctx, c, o) },
		func() error { return addBusybox(ctx, c) },
		func() error { return addModules(c, k, o) },
	} {
		if err := add(); err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
	}
	for _, dir := range []string{"/root", "/mnt", "/etc", "/var"} {
		c.dir(dir, 0o755)
	}
	c.symlink("/var/run", "/run")
	c.symlink("/etc/mtab", "/proc/self/mounts")
	if err := c.close(); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	return f.Close()
}

// addPrograms adds the host's programs, further files and their libraries.
func addPrograms(ctx context.Context, c *cpioWriter, o Options) error {
	files := maps.Clone(o.Files)
	if files == nil {
		files = map[string]string{}
	}
	for _, tool := range o.Tools {
		path, err := findTool(tool)
		if err != nil {
			return err
		}
		files[filepath.Join(toolDir, tool)] = path
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c.file(name, files[name])
		libs, err := sharedLibraries(ctx, files[name])
		if err != nil {
			return err
		}
		for _, lib := range libs {
			c.file(lib, lib)
		}
	}
	return nil
}

// findTool looks for a program where root would find it.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: the program %s is not installed", ErrUnavailable, name)
}

// lddLine is a line of ldd's output that names a file: "libc.so.6 =>
// /lib/libc.so.6 (0x...)", or the dynamic loader's own path.
var lddLine = regexp.MustCompile(`(?:=> |^\s*)(/\S+) \(0x`)

// sharedLibraries returns the libraries that a dynamic program loads, with the
// loader; none for any other file.
func sharedLibraries(ctx context.Context, path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, nil // not a program
	}
	defer f.Close()
	if !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, nil
	}
	out, err := exec.CommandContext(ctx, "ldd", path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", path, err, lastLine(out))
	}
	var libs []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("ldd %s: %s", path, strings.TrimSpace(line))
		}
		if m := lddLine.FindStringSubmatch(line); m != nil {
			libs = append(libs, m[1])
		}
	}
	return libs, nil
}

// addBusybox adds busybox under all its names.
func addBusybox(ctx context.Context, c *cpioWriter) error {
	path, err := findTool("busybox")
	if err != nil {
		return err
	}
	libs, err := sharedLibraries(ctx, path)
	if err != nil {
		return err
	}
	if len(libs) > 0 {
		return fmt.Errorf("%w: %s is not static; install busybox-static", ErrUnavailable, path)
	}
	out, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", path, err)
	}
	c.file("/bin/busybox", path)
	for _, applet := range strings.Fields(string(out)) {
		c.symlink(filepath.Join("/bin", applet), "busybox")
	}
	return nil
}

// addModules adds the modules and the agent's configuration that names them.
func addModules(c *cpioWriter, k *Kernel, o Options) error {
	tree, err := openModules(k.Modules)
	if err != nil {
		return err
	}
	names := []string{"virtio_pci", "virtio_console", "virtio_net", "virtio_blk"}
	params := map[string]string{}
	for _, m := range o.Modules {
		name, rest, _ := strings.Cut(m, " ")
		names = append(names, name)
		params[moduleName(name)] = rest
	}
	order, err := tree.resolve(names)
	if err != nil {
		return err
	}
	cfg := wire.Config{Env: o.Env, Setup: networkSetup}
	if o.System {
		cfg.System = &wire.System{Device: "/dev/vda", Files: slices.Sorted(maps.Keys(o.Files))}
	}
	for _, m := range order {
		guestPath := filepath.Join(moduleDir, m.name+".ko")
		c.file(guestPath, m.path)
		cfg.Modules = append(cfg.Modules, wire.Module{Path: guestPath, Params: params[m.name]})
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	c.bytes(wire.ConfigPath, 0o644, string(raw))
	return nil
}
