package guest_test

import (
	"os"
	"path/filepath"
	"testing"

	"lsad/tools/guest"
)

// serveInGuest starts lsad on the file system that is mounted at /data, and
// attaches its volume. What it prints goes to a file, since a script waits for
// all that hold its output.
const serveInGuest = `
	lsad serve --dir /data/lsad --nbd unix:/run/nbd.sock --map-cache 64MiB >/run/lsad.log 2>&1 &
	for i in $(seq 1800); do
		if [ -S /run/nbd.sock ] && nbd-client -N vol0 -unix /run/nbd.sock /dev/nbd0 >/dev/null 2>&1; then break; fi
		sleep 0.1
	done
	if [ "$(cat /sys/block/nbd0/size)" = 0 ]; then cat /run/lsad.log >&2; exit 1; fi
`

// TestPowerLoss runs lsad itself in the guest, on a disk of the guest, and
// cuts the power while a file system on its volume is being written. All that
// the guest's kernel had not written to the disk is lost, lsad's data and its
// map alike, so this holds that lsad has synced what it says that it has.
func TestPowerLoss(t *testing.T) {
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	options := guest.Options{
		MemoryMiB: 1024,
		Modules:   []string{"nbd nbds_max=1", "ext4"},
		Tools:     []string{"nbd-client", "mkfs.ext4", "e2fsck"},
		Files: map[string]string{
			"/etc/mke2fs.conf":        "/etc/mke2fs.conf",
			"/usr/local/bin/lsad":     build(t, "lsad/cmd/lsad"),
			"/usr/local/bin/filetree": buildTool(t, "filetree"),
		},
		Disks: []guest.Disk{{Path: filepath.Join(t.TempDir(), "disk"), Size: 32 << 30}},
	}
	vm := guest.Start(t, options)
	vm.MustRun(t, "mkfs.ext4 -q /dev/vda; mkdir /data; mount /dev/vda /data"+serveInGuest+`
		mkfs.ext4 -q -F /dev/nbd0; mount /dev/nbd0 /mnt; mkdir /mnt/safe /mnt/busy
		filetree write /mnt/safe 1 1000
		sync -f /mnt/safe`)
	if _, err := vm.Go("filetree write /mnt/busy 2 1000000", nil); err != nil {
		t.Fatal(err)
	}
	vm.MustRun(t, `until [ $(ls /mnt/busy/* | wc -l) -gt 300 ]; do sleep 0.1; done`)
	vm.PowerOff()

	vm = guest.Start(t, options)
	vm.MustRun(t, "mkdir /data; mount /dev/vda /data"+serveInGuest+`
		mount /dev/nbd0 /mnt
		filetree verify /mnt/safe 1 1000
		umount /mnt
		e2fsck -f -n /dev/nbd0 >/tmp/fsck 2>&1 || { cat /tmp/fsck >&2; exit 1; }`)
	t.Log(vm.MustRun(t, "cat /run/lsad.log"))
}
