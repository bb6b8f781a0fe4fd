package guest_test

import (
	"fmt"
	"strings"
	"testing"

	"lsad/tools/guest"
)

// ublkDisk is vol0 through ublk.
var ublkDisk = localDisk{dev: "/dev/ublkb0", attach: "lsad ublk add vol0 >/dev/null", detach: "lsad ublk del vol0 >/dev/null"}

// ublkTests are those of lsad's ublk devices, against the kernel's driver.
var ublkTests = []localTest{
	{"driver", ublkDriver},
	{"device", ublkDevice},
	{"ext4", onlySoak("attached disks have it, and these xfs", func(t *testing.T, vm *guest.VM) {
		fileSystemLocal(t, vm, ublkDisk, "mkfs.ext4 -q -F", "e2fsck -f -n")
	})},
	{"xfs", func(t *testing.T, vm *guest.VM) { fileSystemLocal(t, vm, ublkDisk, "mkfs.xfs -q -f", "xfs_repair -n") }},
	{"killed server", func(t *testing.T, vm *guest.VM) { killLocal(t, vm, ublkDisk, killWays...) }},
	{"killed server with every request under way", func(t *testing.T, vm *guest.VM) {
		shallow := ublkDisk
		shallow.attach = "lsad ublk add vol0 --depth 4 >/dev/null"
		killLocal(t, vm, shallow, "--rw=randwrite --bs=4k --iodepth=32 --size=64m --io_size=5m --fsync=8")
	}},
	{"killed server with two queues", func(t *testing.T, vm *guest.VM) { killLocal(t, vm, ublkTwoQueues, killWays[0]) }},
	{"restarts", ublkRestarts},
	{"stops", ublkStops},
	{"waits", ublkWaits},
	{"flusher", ublkFlusher},
	{"small arrays", ublkSmall},
	{"older", ublkOlder},
	{"cycles", func(t *testing.T, vm *guest.VM) { cyclesLocal(t, vm, ublkDisk) }},
}

// ublkDriver runs those tests of package ublk that take the driver, and holds that the driver did not complain.
func ublkDriver(t *testing.T, vm *guest.VM) {
	out := vm.MustRun(t, "ublk.test -test.v -test.run 'TestTakeOver|TestServed|TestFailed' 2>&1 || { echo FAILED; dmesg | tail -60; }")
	if strings.Contains(out, "FAILED") || !strings.Contains(out, "--- PASS: TestTakeOver ") || !strings.Contains(out, "--- PASS: TestFailed ") {
		t.Fatal(out)
	}
	if warnings := vm.MustRun(t, "dmesg | grep -A 40 -E 'WARNING:|BUG:|Oops' || true"); warnings != "" {
		t.Error(warnings)
	}
}

// ublkDevice looks at the bare device: what the kernel made of it, data in and out, discards, a partition table.
func ublkDevice(t *testing.T, vm *guest.VM) {
	local(t, vm, `[ "$(lsad ublk add vol0 --queues 2)" = /dev/ublkb0 ]; ! lsad ublk add vol0 2>/dev/null; ! lsad ublk add none 2>/dev/null`)
	got := local(t, vm, `cd /sys/block/ublkb0; blockdev --getsize64 /dev/ublkb0
		cat ro queue/write_cache queue/fua queue/logical_block_size queue/physical_block_size queue/discard_granularity
		ls mq | wc -l; [ $(cat queue/discard_max_bytes) -gt 1000000000 ] && [ $(cat queue/write_zeroes_max_bytes) -gt 1000000000 ] && echo discard`)
	if want := fmt.Sprintf("%d\n0\nwrite back\n1\n512\n4096\n4096\n2\ndiscard\n", 1<<30); got != want {
		t.Errorf("the kernel has %q, want %q", got, want)
	}
	verifyDisk(t, vm, ublkDisk)
	discardDisk(t, vm, ublkDisk)
	local(t, vm, `lsad ublk del vol0; [ ! -e /dev/ublkb0 ]; [ ! -e /dev/ublkc0 ]
		lsad ublk add vol0 --read-only; [ "$(blockdev --getro /dev/ublkb0)" = 1 ]; lsad ublk del /dev/ublkb0`)
}

// ublkStops holds what becomes of devices when the server stops: a mounted one waits for the next server and loses
// nothing, any other is removed with its cache written; and that what settings name is made.
func ublkStops(t *testing.T, vm *guest.VM) {
	local(t, vm, `lsad ublk add vol0 >/dev/null; mkfs.ext4 -q -F /dev/ublkb0; mount /dev/ublkb0 /mnt
		! lsad ublk del vol0 2>/tmp/err; grep -q unmount /tmp/err
		umount /mnt; L=$(losetup -f); losetup $L /dev/ublkb0; mount $L /mnt; ! lsad ublk del vol0 2>/tmp/err; grep -q "in use by $L" /tmp/err
		umount /mnt; losetup -d $L; mount /dev/ublkb0 /mnt
		head -c 4000000 /dev/urandom >/mnt/kept; md5sum /mnt/kept >/tmp/sum
		stop; [ -e /dev/ublkb0 ]
		(md5sum -c /tmp/sum && echo more >/mnt/more && sync -f /mnt) >/tmp/over 2>&1 & over=$!
		again --ublk vol0; wait $over; cat /tmp/over
		umount /mnt; e2fsck -f -n /dev/ublkb0 >/dev/null 2>&1; ls /dev/ublkb*`)
	got := local(t, vm, `lsad volume resize vol0 2GiB 2>&1 >/dev/null | grep -c "/dev/ublkb0 keeps 1.0 GiB"; grep -c "keeps the size" /run/lsad.log
		echo cached | dd of=/dev/ublkb0 bs=512 seek=100 conv=notrunc 2>/dev/null; stop; ls /dev | grep ublkb || echo none
		again --ublk vol0; dd if=/dev/ublkb0 bs=512 skip=100 count=1 2>/dev/null | head -n 1; blockdev --getsize64 /dev/ublkb0
		lsad ublk del vol0`)
	if want := fmt.Sprintf("1\n1\nnone\ncached\n%d\nremoved vol0\n", 2<<30); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := local(t, vm, "lsad ublk list --json; cat /run/lsad.log | grep -c 'took over'"); !strings.HasPrefix(got, "[]") {
		t.Error(got)
	}
}
