package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lsad/lsa"
	"lsad/memsvc"
	"lsad/server/admin"
)

// errNeedsFork: the image has disks that have gone on since.
var errNeedsFork = errors.New("a guest that is resumed against newer disks corrupts its file system")

// disksOf checks that a VM which is resumed from an image gets its disks as they were: a fork has clones of them, which
// nobody has written to yet. again is how the command goes on for the fork named other.
func disksOf(name, parent string, volumes []admin.ImageVolume, again func(other string) string) error {
	const other = "NEW"
	var disks, written, clones []string
	for _, v := range volumes {
		clones = append(clones, other+"-"+v.Name)
		switch {
		case v.Clone == "":
			disks = append(disks, v.Name)
		case v.Written:
			written = append(written, v.Clone)
		}
	}
	var why string
	switch {
	case len(disks) > 0:
		why = fmt.Sprintf("it was made with its disks (%s), which go on without it", strings.Join(disks, ", "))
	case len(written) > 0:
		why, name = fmt.Sprintf("its disks (%s) were written to since it was forked, as if a VM had run from it", strings.Join(written, ", ")), parent
	default:
		return nil
	}
	return fmt.Errorf(`%s: %w. Make a fork, whose disks are as they were, and give the VM those:
  lsad image fork %s %s
  the disks of the VM: %s
  %s
If you know that the disks are as they were, --without-volumes goes on without a fork`,
		why, errNeedsFork, quote(name), other, strings.Join(clones, ", "), again(other))
}

// disks are an image's volumes. Of a clone that is gone, or has another name, nothing is known.
func (i *images) disks(m *memsvc.Manifest) []admin.ImageVolume {
	all := []admin.ImageVolume{}
	for _, v := range m.Volumes {
		d := admin.ImageVolume{Name: v.Name, Snapshot: v.Snapshot, Clone: v.Clone}
		if v.Clone != "" {
			info, err := i.server.array.Volume(v.Clone)
			d.Written = err == nil && written(&info)
		}
		all = append(all, d)
	}
	return all
}

// written says whether a clone holds anything of its own, or did.
func written(v *lsa.VolumeInfo) bool {
	own := v.Mapped > 0 || v.Turns > 0
	for _, s := range v.Snapshots {
		own = own || s.Own > 0
	}
	return own
}

// withoutVolumes is the flag of those who know.
const withoutVolumes = "without-volumes"

func withoutVolumesFlag(fs *pflag.FlagSet) *bool {
	return fs.Bool(withoutVolumes, false, "resume an image that was made with its disks without a fork, or a fork whose disks were written to: you know that they are as they were")
}

// hookDisks is disksOf for a hook. One that goes on with a VM which another hook has resumed has nothing to refuse.
func hookDisks(cmd *cobra.Command, i admin.Image) error {
	if allowed, err := cmd.Flags().GetBool(withoutVolumes); allowed || err != nil || passed(os.Getenv, os.Getpid()) {
		return err
	}
	err := disksOf(i.Name, i.Parent, i.Volumes, func(other string) string {
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
