// Package loopdev finds loop devices (loop(4)) by what they are on. It imports nothing of this module.
package loopdev

import (
	"os"
	"path/filepath"
	"strings"
)

// Over returns the loop devices, such as /dev/loop0, that are on a disk or on a partition of it. Whoever has a file system on
// one uses the disk, which an exclusive open of the disk does not show.
func Over(disk string) []string { return over("/sys/block", disk) }

func over(sys, disk string) (loops []string) {
	files, err := filepath.Glob(filepath.Join(sys, "loop*", "loop", "backing_file"))
	if err != nil {
		return nil // only for a bad pattern
	}
	for _, f := range files {
		backing, err := os.ReadFile(f)
		if err == nil && isOn(strings.TrimSuffix(string(backing), "\n"), disk) {
			loops = append(loops, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return loops
}

// isOn says whether a path is a disk or a partition of it. The names of these disks end in a digit, so that a p and the
// partition's number follow.
func isOn(path, disk string) bool {
	rest, ok := strings.CutPrefix(path, disk)
	if !ok || rest == "" {
		return ok
	}
	number, ok := strings.CutPrefix(rest, "p")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
