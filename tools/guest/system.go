package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The Debian that guests with a system of their own run.
const (
	systemSuite    = "bookworm"
	systemPackages = "systemd,systemd-sysv,udev,kmod,e2fsprogs,mount,util-linux,procps"
	systemImage    = "system-" + systemSuite + ".ext4"
	systemSize     = "8G"
)

// systemPrune is what a guest never looks at.
var systemPrune = []string{
	"var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
}

// systemMask are units that cost a guest time and are of no use in it.
var systemMask = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
	"fstrim.timer", "getty.target", "getty-static.service", "logrotate.timer", "systemd-logind.service",
	"systemd-journal-flush.service", "systemd-pstore.service", "systemd-random-seed.service", "systemd-timesyncd.service",
	"systemd-tmpfiles-clean.timer", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
}

// CopySystem makes a file that is the disk of a whole Debian with systemd, for
// [Options.System]. The first call on a machine installs it with debootstrap,
// which takes root, a Debian archive and about a minute, and keeps it in the
// cache.
func CopySystem(ctx context.Context, path string) error {
	dir, err := cacheDir()
	if err != nil {
		return err
	}
	lock, err := lockCache(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	image := filepath.Join(dir, systemImage)
	if _, err := os.Stat(image); err != nil {
		if err := makeSystem(ctx, dir, image); err != nil {
			return err
		}
	}
	return run(ctx, "cp", "--sparse=always", image, path)
}

// makeSystem installs Debian into a file, in one step as seen by others.
func makeSystem(ctx context.Context, dir, image string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: only root can run debootstrap", ErrUnavailable)
	}
	debootstrap, err := findTool("debootstrap")
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "system-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	if err := run(ctx, debootstrap, "--variant=minbase", "--include="+systemPackages, systemSuite, root); err != nil {
		return fmt.Errorf("%w: no Debian to boot: %w", ErrUnavailable, err)
	}
	if err := prepareSystem(root); err != nil {
		return err
	}
	made := filepath.Join(tmp, systemImage)
	if err := run(ctx, "mkfs.ext4", "-q", "-d", root, made, systemSize); err != nil {
		return err
	}
	return os.Rename(made, image)
}

// prepareSystem leaves out what would only take a guest's time, and gives it what
// it would otherwise ask for or make up when it first boots.
func prepareSystem(root string) error {
	for _, name := range systemPrune {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	etc := filepath.Join(root, "etc")
	for _, unit := range systemMask {
		err := os.Symlink("/dev/null", filepath.Join(etc, "systemd/system", unit))
		if err != nil && !os.IsExist(err) {
			return err
		}
	}
	for name, text := range map[string]string{
		"fstab":      "",
		"hostname":   "guest\n",
		"machine-id": strings.Repeat("0123456789abcdef", 2) + "\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
