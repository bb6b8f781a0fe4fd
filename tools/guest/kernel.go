package guest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Kernel is an unpacked kernel package in the cache.
type Kernel struct {
	Release string // as uname -r prints it
	Image   string // file that QEMU boots
	Modules string // lib/modules/RELEASE, modules decompressed
}

// DefaultSeries is the kernel that guests run unless they ask for another.
const DefaultSeries = "6.12"

// kernelPatterns are the names of the packages that will do, by series: the
// cloud build is a third of the full one's size and has every driver that the
// tests want, some of them built in.
var kernelPatterns = map[string]string{
	DefaultSeries: `^linux-image-6\.12\.[0-9.]+[+a-z0-9.]*-cloud-amd64$`,
	"6.1":         `^linux-image-6\.1\.[0-9.]+-[0-9]+-cloud-amd64$`,
}

// kernelPrefix begins the name of a kernel's directory in the cache.
const kernelPrefix = "kernel-"

// Prepare returns the newest kernel of a series, DefaultSeries or "6.1", in the
// cache, which it fills if there is none. It runs once at a time on a machine.
func Prepare(ctx context.Context, series string) (*Kernel, error) {
	pattern, ok := kernelPatterns[series]
	if !ok {
		return nil, fmt.Errorf("guest kernel: series %q is not one of those that guests can run", series)
	}
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	lock, err := lockCache(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if k, err := cachedKernel(dir, series); k != nil || err != nil {
		return k, err
	}
	if err := fetchKernel(ctx, dir, pattern); err != nil {
		return nil, err
	}
	return cachedKernel(dir, series)
}

// cachedKernel returns the newest unpacked kernel of a series, or nil if there
// is none.
func cachedKernel(dir, series string) (*Kernel, error) {
	found, err := filepath.Glob(filepath.Join(dir, kernelPrefix+series+".*"))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	newest := slices.MaxFunc(found, compareVersions)
	release := strings.TrimPrefix(filepath.Base(newest), kernelPrefix)
	return &Kernel{
		Release: release,
		Image:   filepath.Join(newest, "kernel"),
		Modules: filepath.Join(newest, "lib", "modules", release),
	}, nil
}

// fetchKernel downloads the newest kernel package of a pattern that apt knows,
// and unpacks it into dir.
func fetchKernel(ctx context.Context, dir, pattern string) error {
	names, err := kernelPackages(ctx, pattern)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var failed []string
	for _, name := range names {
		// Package lists may be older than the archive, which drops packages.
		cmd := exec.CommandContext(ctx, "apt-get", "-q", "download", name)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v: %s", name, err, lastLine(out)))
			continue
		}
		return unpackKernel(ctx, tmp, dir)
	}
	return fmt.Errorf("%w: no kernel package could be downloaded: %s", ErrUnavailable, strings.Join(failed, "; "))
}

// kernelPackages asks apt which packages will do, newest first.
func kernelPackages(ctx context.Context, pattern string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "search", "--names-only", pattern).Output()
	if err != nil {
		return nil, fmt.Errorf("%w: apt-cache search for a kernel: %w", ErrUnavailable, err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: apt knows no package like %s; run apt-get update", ErrUnavailable, pattern)
	}
	slices.SortFunc(names, func(a, b string) int { return compareVersions(b, a) })
	return names, nil
}

// unpackKernel unpacks the only package in tmp and moves the result into dir
// in one step, so that what is in dir is always whole.
func unpackKernel(ctx context.Context, tmp, dir string) error {
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("kernel download: %d packages in %s instead of one: %w", len(debs), tmp, err)
	}
	root := filepath.Join(tmp, "root")
	if err := run(ctx, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%s: %d kernel images instead of one: %w", filepath.Base(debs[0]), len(images), err)
	}
	if err := extractVmlinux(images[0], filepath.Join(root, "kernel")); err != nil {
		return err
	}
	// Decompressing here is cheaper than in an emulated machine.
	if err := run(ctx, "find", filepath.Join(root, "lib"), "-name", "*.ko.xz",
		"-exec", "busybox", "unxz", "{}", "+"); err != nil {
		return err
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return os.Rename(root, filepath.Join(dir, kernelPrefix+release))
}

var digits = regexp.MustCompile(`[0-9]+`)

// compareVersions orders names by the numbers in them, as versions go.
func compareVersions(a, b string) int {
	number := func(s string) int {
		n, _ := strconv.Atoi(s) // digits only; too many count as zero
		return n
	}
	x, y := digits.FindAllString(a, -1), digits.FindAllString(b, -1)
	return slices.CompareFunc(x, y, func(s, t string) int { return cmp.Compare(number(s), number(t)) })
}

// run runs a command whose output matters only if it fails.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	s := strings.TrimSpace(string(out))
	return s[strings.LastIndexByte(s, '\n')+1:]
}
