package guest_test

import (
	"context"
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lsad/tools/guest"
)

// localTools are the programs of the host that the tests of local disks use.
var localTools = []string{
	"mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "blkdiscard", "fstrim", "fio", "sfdisk",
}

// localOptions is a guest that runs lsad itself, with its array on a disk of the guest.
func localOptions(t *testing.T) guest.Options {
	t.Helper()
	return guest.Options{
		MemoryMiB: 1536,
		CPUs:      2,
		Modules:   []string{"nbd nbds_max=4", "ublk_drv", "null_blk nr_devices=1 gb=1", "ext4", "xfs"},
		Tools:     localTools,
		Files: map[string]string{
			"/etc/mke2fs.conf":        "/etc/mke2fs.conf",
			"/usr/local/bin/lsad":     build(t, "lsad/cmd/lsad"),
			"/usr/local/bin/filetree": buildTool(t, "filetree"),
		},
		Disks: []guest.Disk{{Path: filepath.Join(t.TempDir(), "disk"), Size: 8 << 30}},
	}
}

// serveLocal is a script that defines how a server is started in the guest, with its array in /data, and how it is
// ended. What it prints goes to a file, since a script waits for all that hold its output.
const serveLocal = `
	cd /data
	# serve [FLAG...]: start a server and wait until it serves.
	serve() {
		mv /run/lsad.log /run/lsad.log.old 2>/dev/null || true
		lsad serve --device dev0:2GiB --device dev1:2GiB --volume vol0:1GiB --segment-size 8MiB --map-cache 64MiB --http none "$@" >/run/lsad.out 2>/run/lsad.log &
		echo $! >/run/lsad.pid
		for i in $(seq 1200); do
			grep -q "lsad serves" /run/lsad.out && return 0
			kill -0 $(cat /run/lsad.pid) 2>/dev/null || break
			sleep 0.05
		done
		cat /run/lsad.log >&2
		return 1
	}
	# again [FLAG...]: the same for an array that is there.
	again() {
		: >/run/lsad.out
		lsad serve --http none --map-cache 64MiB "$@" >/run/lsad.out 2>>/run/lsad.log &
		echo $! >/run/lsad.pid
		for i in $(seq 1200); do
			grep -q "lsad serves" /run/lsad.out && return 0
			kill -0 $(cat /run/lsad.pid) 2>/dev/null || break
			sleep 0.05
		done
		cat /run/lsad.log >&2
		return 1
	}
	ended() { while kill -0 $(cat /run/lsad.pid) 2>/dev/null; do sleep 0.05; done; }
	stop() { kill $(cat /run/lsad.pid); ended; }
	kill9() { kill -9 $(cat /run/lsad.pid); ended; }
`

// startLocal boots a guest and mounts the disk for the array at /data.
func startLocal(t *testing.T) (*guest.VM, guest.Options) {
	t.Helper()
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	o := localOptions(t)
	vm := guest.Start(t, o)
	vm.MustRun(t, "mkfs.ext4 -q /dev/vda; mkdir /data; mount /dev/vda /data")
	t.Cleanup(func() {
		if t.Failed() {
			out, err := vm.Run(context.Background(), "cat /run/lsad.log; dmesg | tail -60")
			t.Logf("the server in the guest: %v\n%s", err, out.Stdout)
		}
	})
	return vm, o
}

// local runs a script with the functions of serveLocal.
func local(t *testing.T, vm *guest.VM, script string) string {
	t.Helper()
	return vm.MustRun(t, serveLocal+script)
}

// TestUblk runs lsad's ublk devices against the kernel's driver.
func TestUblk(t *testing.T) {
	vm, _ := startLocal(t)
	local(t, vm, "serve")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *guest.VM)
	}{
		{"device", ublkDevice},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, vm) }) {
			break
		}
	}
}

// ublkDevice looks at the bare device: what the kernel made of it, data in and out, discards, a partition table.
func ublkDevice(t *testing.T, vm *guest.VM) {
	local(t, vm, `[ "$(lsad ublk add vol0 --queues 2)" = /dev/ublkb0 ]`)
	got := local(t, vm, `cd /sys/block/ublkb0; blockdev --getsize64 /dev/ublkb0
		cat ro queue/write_cache queue/fua queue/logical_block_size queue/physical_block_size queue/discard_granularity
		ls mq | wc -l; [ $(cat queue/discard_max_bytes) -gt 1000000000 ] && [ $(cat queue/write_zeroes_max_bytes) -gt 1000000000 ] && echo discard`)
	if want := fmt.Sprintf("%d\n0\nwrite back\n1\n512\n4096\n4096\n2\ndiscard\n", 1<<30); got != want {
		t.Errorf("the kernel has %q, want %q", got, want)
	}
	t.Log(local(t, vm, "lsad ublk list"))
	verifyDisk(t, vm, "/dev/ublkb0")
	discardDisk(t, vm, "/dev/ublkb0")
	local(t, vm, "lsad ublk del vol0; [ ! -e /dev/ublkb0 ]; [ ! -e /dev/ublkc0 ]")
}

// verifyDisk writes in three ways and reads everything back.
func verifyDisk(t *testing.T, vm *guest.VM, dev string) {
	t.Helper()
	for _, way := range []string{
		"--rw=randwrite --bs=4k --iodepth=32 --size=64m --io_size=16m",
		"--rw=write --bs=1m --iodepth=8 --size=64m",
		"--rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=16 --size=64m --io_size=8m --fsync=4",
	} {
		vm.MustRun(t, fmt.Sprintf(`fio --name=verify --filename=%s --direct=1 --ioengine=libaio --randseed=1 %s \
			--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse --terse-version=3 >/tmp/fio.out 2>&1 ||
			{ cat /tmp/fio.out >&2; exit 1; }`, dev, way))
	}
}

// discardDisk holds that a discard of the whole device leaves zeros, that unaligned direct I/O is refused, and that
// the kernel finds a partition table.
func discardDisk(t *testing.T, vm *guest.VM, dev string) {
	t.Helper()
	sum := "dd if=" + dev + " bs=1M count=64 iflag=direct 2>/dev/null | md5sum"
	zeros := fmt.Sprintf("%x  -\n", md5.Sum(make([]byte, 64<<20)))
	if got := vm.MustRun(t, sum); got == zeros {
		t.Error("fio left nothing that could be discarded")
	}
	if got := vm.MustRun(t, "blkdiscard "+dev+"; "+sum); got != zeros {
		t.Error("not all is zero after a discard of the device")
	}
	out := vm.MustRun(t, "fio --name=unaligned --filename="+dev+" --direct=1 --rw=read --bs=1000 --size=10000 2>&1 || true")
	if !strings.Contains(out, "Invalid argument") {
		t.Errorf("direct reads of 1000 bytes: %s", out)
	}
	got := vm.MustRun(t, `printf 'label: gpt\nsize=16MiB\nsize=32MiB\n' | sfdisk -q `+dev+`
		blockdev --rereadpt `+dev+`; cat /sys/block/`+filepath.Base(dev)+`/*p[12]/size; blkdiscard -f `+dev+`; blockdev --rereadpt `+dev)
	if strings.Join(strings.Fields(got), " ") != "32768 65536" {
		t.Errorf("partitions of %q sectors", got)
	}
}
