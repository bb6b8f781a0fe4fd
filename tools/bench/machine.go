package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machine says what was measured on and with.
type machine struct {
	CPU        string   `json:"cpu"`
	Cores      int      `json:"cores"`
	Memory     string   `json:"memory"`
	Kernel     string   `json:"kernel"`
	FileSystem string   `json:"file_system"`
	Programs   []string `json:"programs"`
}

func describeMachine(ctx context.Context, dir string) machine {
	m := machine{Cores: runtime.NumCPU(), CPU: field("/proc/cpuinfo", "model name"), FileSystem: fileSystem(dir)}
	if kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	m.Programs = []string{runtime.Version(), "go-nbd v0.3.2"}
	for _, p := range []string{"nbdkit", "qemu-nbd", "fio"} {
		if out, err := runProgram(ctx, p, "--version"); err == nil {
			line, _, _ := strings.Cut(string(out), "\n")
			m.Programs = append(m.Programs, strings.TrimSpace(line))
		}
	}
	return m
}

// field is the value of the first "name: value" line of a file.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return ""
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}
	if name, ok := names[s.Type]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", s.Type)
}

// freeBytes is what an unprivileged user may still store in dir's file system.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// warmMemory touches up to n bytes of memory, no more than half of what is free, and gives them back: in a virtual
// machine the first touch of a page is a fault in the host, which would be charged to whoever comes first.
func warmMemory(n int64) (int64, error) {
	kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemAvailable"), " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/meminfo: %w", err)
	}
	n = min(n, kib<<10/2)
	mem, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return 0, fmt.Errorf("warm memory: %w", err)
	}
	return n, unix.Munmap(mem)
}

// syncFS writes back what the file system of dir holds in the page cache, so that no run pays for the one before.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
