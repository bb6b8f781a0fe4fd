package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lsad/memsvc"
	"lsad/server/admin"
)

// errNeedsFork: the image has disks that have gone on since.
var errNeedsFork = errors.New("a guest that is resumed against newer disks corrupts its file system")

// disksOf checks that a VM which is resumed from an image gets its disks as they were: a fork has clones of them. again is
// how the command goes on for the fork named other.
func disksOf(name string, volumes []admin.ImageVolume, again func(other string) string) error {
	const other = "NEW"
	var disks, clones []string
	for _, v := range volumes {
		if v.Clone == "" {
			disks, clones = append(disks, v.Name), append(clones, other+"-"+v.Name)
		}
	}
	if len(disks) == 0 {
		return nil
	}
	return fmt.Errorf(`it was made with its disks (%s), which go on without it: %w. Make a fork, whose disks are as they were, and give the VM those:
  lsad image fork %s %s
  the disks of the VM: %s
  %s
If you know that the disks are as they were, --without-volumes goes on without a fork`,
		strings.Join(disks, ", "), errNeedsFork, quote(name), other, strings.Join(clones, ", "), again(other))
}

// volumesOf are an image's volumes.
func volumesOf(m *memsvc.Manifest) []admin.ImageVolume {
	var all []admin.ImageVolume
	for _, v := range m.Volumes {
		all = append(all, admin.ImageVolume{Name: v.Name, Snapshot: v.Snapshot, Clone: v.Clone})
	}
	return all
}

// withoutVolumes is the flag of those who know.
const withoutVolumes = "without-volumes"

func withoutVolumesFlag(fs *pflag.FlagSet) *bool {
	return fs.Bool(withoutVolumes, false, "resume an image that was made with its disks without a fork: you know that the disks are as they were")
}

// hookDisks is disksOf for a hook. One that goes on with a VM which another hook has resumed has nothing to refuse.
func hookDisks(cmd *cobra.Command, i admin.Image) error {
	if allowed, err := cmd.Flags().GetBool(withoutVolumes); allowed || err != nil || passed(os.Getenv, os.Getpid()) {
		return err
	}
	err := disksOf(i.Name, i.Volumes, func(other string) string {
		return "lsad hook --image " + other + " --socket " + quote(cmd.Flag("socket").Value.String())
	})
	if err != nil {
		return fmt.Errorf("image %q: %w", i.Name, err)
	}
	return nil
}

// passed says whether systemd passes descriptors (sd_listen_fds(3)).
func passed(getenv func(string) string, pid int) bool {
	return getenv("LISTEN_PID") == strconv.Itoa(pid) && getenv("LISTEN_FDS") != "" && getenv("LISTEN_FDS") != "0"
}
