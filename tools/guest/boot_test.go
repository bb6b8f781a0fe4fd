package guest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lsad/tools/guest"
)

// TestBoot holds what every other guest test builds on: scripts and their
// outputs, modules with parameters, the host's dynamic programs, disks that
// outlive a power cut.
func TestBoot(t *testing.T) {
	guest.OnlySoak(t, "all other tests boot guests and run scripts in them, and some cut the power")
	disk := filepath.Join(t.TempDir(), "disk")
	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	options := guest.Options{
		Modules: []string{"null_blk nr_devices=1 gb=1", "xfs", "ublk_drv", "dm-flakey", "dm-log-writes"},
		Tools:   []string{"mkfs.ext4"},
		Files:   map[string]string{"/etc/note": note},
		Env:     []string{"COLOUR=green"},
		Disks:   []guest.Disk{{Path: disk, Size: 64 << 20}},
	}
	vm := guest.Start(t, options)

	t.Run("outputs and status", func(t *testing.T) {
		out, err := vm.Run(t.Context(), `echo "$COLOUR"; echo oops >&2; exit 7`)
		if err != nil || out.Stdout != "green\n" || out.Stderr != "oops\n" || out.Code != 7 {
			t.Fatalf("got %+v, %v", out, err)
		}
	})
	t.Run("large output", func(t *testing.T) {
		if got := len(vm.MustRun(t, "head -c 1000000 /dev/zero | tr '\\0' x")); got != 1000000 {
			t.Fatalf("%d bytes of 1000000 arrived", got)
		}
	})
	t.Run("input and interleaved jobs", func(t *testing.T) {
		slow, err := vm.Go("read line; sleep 1; echo slow $line", []byte("as told\n"))
		if err != nil {
			t.Fatal(err)
		}
		vm.MustRun(t, "true")
		out, err := slow.Wait(t.Context())
		if err != nil || out.Stdout != "slow as told\n" {
			t.Fatalf("got %+v, %v", out, err)
		}
	})
	t.Run("kill", func(t *testing.T) {
		job, err := vm.Go("sleep 1000", nil)
		if err != nil {
			t.Fatal(err)
		}
		job.Kill()
		if out, err := job.Wait(t.Context()); err == nil {
			t.Fatalf("a killed job ended well: %+v", out)
		}
	})
	t.Run("files and modules", func(t *testing.T) {
		got := vm.MustRun(t, `
			cat /etc/note
			blockdev --getsize64 /dev/nullb0
			grep -c xfs /proc/filesystems
			test -c /dev/ublk-control
			test -c /dev/mapper/control`)
		if got != "from the host1073741824\n1\n" {
			t.Fatalf("got %q", got)
		}
	})

	vm.MustRun(t, `mkfs.ext4 -q /dev/vda; mount /dev/vda /mnt; echo kept > /mnt/synced; sync; echo lost > /mnt/unsynced`)
	vm.PowerOff()
	if _, err := vm.Run(t.Context(), "true"); !errors.Is(err, guest.ErrPoweredOff) {
		t.Errorf("a script after power-off: %v", err)
	}
	vm = guest.Start(t, options)
	got := vm.MustRun(t, `mount /dev/vda /mnt; cd /mnt; cat synced; cat unsynced || true`)
	if strings.TrimSpace(got) != "kept" {
		t.Errorf("after a power cut the disk holds %q", got)
	}
}
