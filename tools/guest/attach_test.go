package guest_test

import (
	"fmt"
	"strings"
	"testing"

	"lsad/tools/guest"
)

// nbdDisk is vol0 through the kernel's NBD client.
var nbdDisk = localDisk{dev: "/dev/nbd0", attach: "attach vol0 /dev/nbd0", detach: "detach /dev/nbd0"}

// attachTests are those of lsad attach, against the kernel's NBD driver.
var attachTests = []localTest{
	{"device", attachDevice},
	{"ext4", func(t *testing.T, vm *guest.VM) { fileSystemLocal(t, vm, nbdDisk, "mkfs.ext4 -q -F", "e2fsck -f -n") }},
	{"xfs", onlySoak("ublk disks have it, and these ext4", func(t *testing.T, vm *guest.VM) {
		fileSystemLocal(t, vm, nbdDisk, "mkfs.xfs -q -f", "xfs_repair -n")
	})},
	{"killed server", func(t *testing.T, vm *guest.VM) { killLocal(t, vm, nbdDisk, killWays...) }},
	{"restarts", attachRestarts},
	{"taken over", attachTakenOver},
	{"foreign", attachForeign},
	{"unwatched fails", attachUnwatchedFails},
	{"grows", attachGrows},
	{"ends in an outage", attachEndsInOutage},
	{"fails", attachFails},
	{"reverted", attachReverted},
	{"remote", attachRemote},
	{"cycles", func(t *testing.T, vm *guest.VM) { cyclesLocal(t, vm, nbdDisk) }},
	{"lost power", attachLostPower},
}

// attachDevice looks at the bare device, and at what is refused.
func attachDevice(t *testing.T, vm *guest.VM) {
	got := local(t, vm, `attach vol0 /dev/nbd0 --connections 3; cat /run/attach.out; blockdev --getsize64 /dev/nbd0
		(cd /sys/block/nbd0; cat ro queue/write_cache queue/fua queue/logical_block_size)
		! lsad attach vol0 /dev/nbd0 2>/tmp/err; grep -c "watched by another process" /tmp/err
		! lsad attach none /dev/nbd1 2>/tmp/err; grep -c "unknown export" /tmp/err
		! lsad detach /dev/nbd1 2>/tmp/err; grep -c "not an attached" /tmp/err`)
	if want := fmt.Sprintf("/dev/nbd0\n%d\n0\nwrite back\n1\n512\n1\n1\n1\n", 1<<30); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if list := local(t, vm, "lsad attach --list"); !strings.Contains(list, "/dev/nbd0  vol0    unix:/data/lsad-data/nbd.sock  1.0 GiB  3            watched") {
		t.Error(list)
	}
	verifyDisk(t, vm, nbdDisk)
	discardDisk(t, vm, nbdDisk)
	local(t, vm, `detach /dev/nbd0; [ "$(lsad attach --list --json)" = "[]" ]
		attach 'nbd+unix:///vol0?socket=/data/lsad-data/nbd.sock' --timeout 1m; [ "$(cat /run/attach.out)" = /dev/nbd0 ]; detach /dev/nbd0`)
}

// attachRestarts holds that a file system sees nothing of a server that is stopped and started, that an attachment
// whose watcher was killed is seen and taken over, and that a mounted one is not detached.
func attachRestarts(t *testing.T, vm *guest.VM) {
	local(t, vm, `attach vol0 /dev/nbd0; mkfs.ext4 -q -F /dev/nbd0; mount /dev/nbd0 /mnt
		! lsad detach /dev/nbd0 2>/tmp/err; grep -q unmount /tmp/err
		head -c 4000000 /dev/urandom >/mnt/kept; md5sum /mnt/kept >/tmp/sum; stop
		(echo 3 >/proc/sys/vm/drop_caches; md5sum -c /tmp/sum && echo more >/mnt/more && sync -f /mnt) >/tmp/over 2>&1 & over=$!
		sleep 1; again; wait $over; cat /tmp/over
		kill -9 $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
		lsad attach --list | grep -q unwatched
		kill9; again; attach vol0 /dev/nbd0; lsad attach --list | grep -q " watched"
		echo even more >/mnt/more; sync -f /mnt
		kill $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
		lsad attach --list | grep -q unwatched; attach vol0 /dev/nbd0
		umount /mnt; e2fsck -f -n /dev/nbd0 >/dev/null 2>&1
		kill $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
		[ "$(lsad attach --list --json)" = "[]" ]`)
}

// attachLostPower holds that a server whose machine seems to have lost power is not reconnected to: users of the
// device see errors, and lsad attach says why.
func attachLostPower(t *testing.T, vm *guest.VM) {
	local(t, vm, `attach vol0 /dev/nbd0; dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null
		kill9; echo 11111111-2222-3333-4444-555555555555 >/tmp/boot; mount --bind /tmp/boot /proc/sys/kernel/random/boot_id
		again; ! dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null
		status=0; wait $(cat /run/attach.pid) || status=$?; [ $status = 1 ]
		grep -q "its incarnation was" /run/attach.log; [ "$(lsad attach --list --json)" = "[]" ]
		umount /proc/sys/kernel/random/boot_id; attach vol0 /dev/nbd0; detach /dev/nbd0
		stop; again # in order: else the next kill would look like a loss of power, too`)
}
