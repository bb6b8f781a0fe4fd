package guest_test

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lsad/tools/guest"
)

// localTools are the programs of the host that the tests of local disks use.
var localTools = []string{
	"mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "blkdiscard", "fstrim", "fio", "sfdisk", "nbd-client",
}

// localOptions is a guest that runs lsad itself, with its array on a disk of the guest, and that has further files.
func localOptions(t *testing.T, files map[string]string) guest.Options {
	t.Helper()
	functions := filepath.Join(t.TempDir(), "local.sh")
	if err := os.WriteFile(functions, []byte(serveLocal), 0o600); err != nil {
		t.Fatal(err)
	}
	o := guest.Options{
		MemoryMiB: 1536,
		CPUs:      2,
		Modules:   []string{"nbd nbds_max=4", "ublk_drv", "null_blk nr_devices=1 gb=1", "loop", "ext4", "xfs"},
		Tools:     localTools,
		Files: map[string]string{
			"/etc/local.sh":           functions,
			"/etc/mke2fs.conf":        "/etc/mke2fs.conf",
			"/random":                 randomFile(t),
			"/usr/local/bin/lsad":     build(t, "lsad/cmd/lsad"),
			"/usr/local/bin/filetree": buildTool(t, "filetree"),
		},
		Disks: []guest.Disk{{Path: filepath.Join(t.TempDir(), "disk"), Size: 8 << 30}},
	}
	maps.Copy(o.Files, files)
	return o
}

// serveLocal is a script that defines how a server is started in the guest, with its array in /data, and how it is
// ended. What it prints goes to a file, since a script waits for all that hold its output.
const serveLocal = `
	cd /data
	# serve [FLAG...]: start a server and wait until it serves.
	serve() {
		mv /run/lsad.log /run/lsad.log.old 2>/dev/null || true
		lsad serve --device dev0:2GiB --device dev1:2GiB --volume vol0:1GiB --segment-size 8MiB --map-cache 64MiB "$@" >/run/lsad.out 2>/run/lsad.log &
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
		lsad serve --map-cache 64MiB "$@" >/run/lsad.out 2>>/run/lsad.log &
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
	# attach VOLUME DEVICE [FLAG...]: start lsad attach and wait until it has attached.
	attach() {
		: >/run/attach.out
		lsad attach "$@" >/run/attach.out 2>>/run/attach.log &
		echo $! >/run/attach.pid
		for i in $(seq 600); do
			[ -s /run/attach.out ] && return 0
			kill -0 $(cat /run/attach.pid) 2>/dev/null || break
			sleep 0.05
		done
		cat /run/attach.log >&2
		return 1
	}
	# detach DEVICE [FLAG...]: the same for lsad detach, and wait until lsad attach has noticed.
	detach() {
		lsad detach "$@" >/dev/null
		while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
	}
`

// startLocal boots a guest, with further files, and mounts the disk for the array at /data.
func startLocal(t *testing.T, files map[string]string) (*guest.VM, guest.Options) {
	t.Helper()
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	o := localOptions(t, files)
	vm := guest.Start(t, o)
	vm.MustRun(t, "mkfs.ext4 -q /dev/vda; mkdir /data; mount /dev/vda /data")
	t.Cleanup(func() {
		if t.Failed() {
			out, err := vm.Run(context.Background(), "cat /run/lsad.log; cat /run/attach.log; dmesg | tail -60")
			t.Logf("the server in the guest: %v\n%s", err, out.Stdout)
		}
	})
	return vm, o
}

// local runs a script with the functions of serveLocal.
func local(t *testing.T, vm *guest.VM, script string) string {
	t.Helper()
	return vm.MustRun(t, ". /etc/local.sh\n"+script)
}

// localDisk is a way to make the volume vol0 a disk of the guest. The scripts have the functions of serveLocal.
type localDisk struct {
	dev            string
	attach, detach string
}

// verifyDisk writes in three ways at once and reads everything back. A request takes the emulator a millisecond or two,
// and fio more than a second to start.
func verifyDisk(t *testing.T, vm *guest.VM, d localDisk) {
	t.Helper()
	vm.MustRun(t, fioVerified(d.dev,
		"--rw=randwrite --bs=4k --iodepth=32 --size=16m --io_size=2m",
		"--rw=write --bs=1m --iodepth=8 --offset=64m --size=12m",
		"--rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=16 --offset=128m --size=64m --io_size=2m --fsync=4",
	)+" || { cat /tmp/fio.out >&2; exit 1; }")
}

// fioVerified is a command that writes to a device in several ways at once, each in its own part of it, and then
// reads everything back.
func fioVerified(dev string, ways ...string) string {
	jobs := ""
	for i, way := range ways {
		jobs += fmt.Sprintf(" --name=way%d %s", i, way)
	}
	return fmt.Sprintf(`fio --filename=%s --direct=1 --ioengine=libaio --randseed=1 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse --terse-version=3 %s >/tmp/fio.out 2>&1`, dev, jobs)
}

// discardDisk holds that a discard of the whole device leaves zeros, that unaligned direct I/O is refused, and that
// the kernel finds a partition table.
func discardDisk(t *testing.T, vm *guest.VM, d localDisk) {
	t.Helper()
	sum := "dd if=" + d.dev + " bs=1M count=16 iflag=direct 2>/dev/null | md5sum"
	zeros := fmt.Sprintf("%x  -\n", md5.Sum(make([]byte, 16<<20)))
	if got := vm.MustRun(t, sum); got == zeros {
		t.Error("fio left nothing that could be discarded")
	}
	if got := vm.MustRun(t, "blkdiscard "+d.dev+"; "+sum); got != zeros {
		t.Error("not all is zero after a discard of the device")
	}
	out := vm.MustRun(t, "fio --name=unaligned --filename="+d.dev+" --direct=1 --rw=read --bs=1000 --size=10000 2>&1 || true")
	if !strings.Contains(out, "Invalid argument") {
		t.Errorf("direct reads of 1000 bytes: %s", out)
	}
	got := vm.MustRun(t, `printf 'label: gpt\nsize=16MiB\nsize=32MiB\n' | sfdisk -q `+d.dev+`
		blockdev --rereadpt `+d.dev+`; cat /sys/block/`+filepath.Base(d.dev)+`/*p[12]/size; blkdiscard -f `+d.dev+`; blockdev --rereadpt `+d.dev)
	if strings.Join(strings.Fields(got), " ") != "32768 65536" {
		t.Errorf("partitions of %q sectors", got)
	}
}

// fileSystemLocal is the life of a file system on a local disk: made, filled, unmounted, detached, attached,
// checked, found intact, trimmed with its space seen to return.
func fileSystemLocal(t *testing.T, vm *guest.VM, d localDisk, mkfs, fsck string) {
	fsck = fsck + " " + d.dev + " >/tmp/fsck 2>&1 || { cat /tmp/fsck >&2; exit 1; }\n"
	local(t, vm, d.attach+"; "+mkfs+" "+d.dev+"; mount "+d.dev+" /mnt; mkdir /mnt/tree; filetree write /mnt/tree 1 200; umount /mnt; "+d.detach)
	local(t, vm, d.attach+"; "+fsck+"mount "+d.dev+" /mnt; filetree verify /mnt/tree 1 200; sync; fstrim /mnt")
	before := mappedInGuest(t, vm)
	local(t, vm, "for i in 1 2; do cat /random; done >/mnt/large; sync")
	if full := mappedInGuest(t, vm); full-before < 16<<20*9/10 {
		t.Errorf("a file of 16 MiB maps %d bytes: the measure is wrong", full-before)
	}
	// xfs frees the blocks of a deleted file in the background.
	local(t, vm, "rm /mnt/large; sync; fstrim /mnt; sleep 1; sync; fstrim /mnt")
	if after := mappedInGuest(t, vm); after-before > 4<<20 {
		t.Errorf("fstrim left %d bytes mapped of a deleted file of 16 MiB", after-before)
	}
	local(t, vm, "filetree verify /mnt/tree 1 200; umount /mnt\n"+fsck+d.detach)
}

// mappedInGuest is how much of vol0 is mapped.
func mappedInGuest(t *testing.T, vm *guest.VM) int64 {
	t.Helper()
	var v struct {
		Mapped int64 `json:"mapped_bytes"`
	}
	if err := json.Unmarshal([]byte(local(t, vm, "lsad volume show vol0 --json")), &v); err != nil {
		t.Fatal(err)
	}
	return v.Mapped
}

// killWays are what is going on when a server is killed: random writes, sequential ones, and ones that are flushed. They
// are seven times what is written when the kill comes: a slow host still finds them under way, and all of it is read.
var killWays = []string{
	"--rw=randwrite --bs=4k --iodepth=32 --size=64m --io_size=3m",
	"--rw=write --bs=1m --iodepth=4 --offset=128m --size=16m",
	"--rw=randwrite --bsrange=4k-64k --blockalign=4k --iodepth=8 --offset=512m --size=64m --io_size=2m --fsync=4",
}

// killAfter is how many bytes have been written when a server is killed.
const killAfter = 3 << 20

// killLocal kills the server while fio writes to the disk, starts it again, and holds that fio sees no error and
// reads back what it wrote.
func killLocal(t *testing.T, vm *guest.VM, d localDisk, ways ...string) {
	local(t, vm, d.attach)
	before := writtenLocal(t, vm, d)
	job, err := vm.Go(fioVerified(d.dev, ways...), nil)
	if err != nil {
		t.Fatal(err)
	}
	for writtenLocal(t, vm, d) < before+killAfter {
		if job.Done() {
			t.Fatalf("fio ended too early to be disturbed: %+v", job.Output())
		}
	}
	local(t, vm, "kill9; sleep 0.3; again")
	if out, err := job.Wait(t.Context()); err != nil || out.Code != 0 {
		t.Fatalf("fio over a restart of the server: status %d, %v\n%s", out.Code, err, vm.MustRun(t, "cat /tmp/fio.out"))
	}
	local(t, vm, d.detach)
}

// writtenLocal is how many bytes the guest's kernel has written to a disk.
func writtenLocal(t *testing.T, vm *guest.VM, d localDisk) int64 {
	t.Helper()
	got := vm.MustRun(t, "awk '{ print $7 }' /sys/block/"+filepath.Base(d.dev)+"/stat")
	sectors, err := strconv.ParseInt(strings.TrimSpace(got), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return sectors * 512
}

// cyclesLocal attaches and detaches ten times, and holds that nothing of it is left in the server or the kernel.
func cyclesLocal(t *testing.T, vm *guest.VM, d localDisk) {
	const count = `P=/proc/$(cat /run/lsad.pid); ls $P/fd | wc -l; wget -q -O - http://127.0.0.1:10810/metrics | sed -n 's/^go_goroutines //p'
		sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' $P/status; ls /dev | grep -c ublk; cat /sys/block/nbd0/size`
	once := d.attach + "; dd if=" + d.dev + " of=/dev/null bs=4k count=1 2>/dev/null; " + d.detach + "\n"
	read := func() (fds, goroutines, kib, devices, nbd int) {
		got := local(t, vm, count)
		if _, err := fmt.Sscan(got, &fds, &goroutines, &kib, &devices, &nbd); err != nil {
			t.Fatalf("%v: %q", err, got)
		}
		return
	}
	local(t, vm, once+once)
	fds, goroutines, kib, devices, nbd := read()
	local(t, vm, "for i in $(seq 10); do "+once+"done; sleep 0.5")
	fds2, goroutines2, kib2, devices2, nbd2 := read()
	t.Logf("after 10 cycles: %d -> %d descriptors, %d -> %d goroutines, %d -> %d KiB", fds, fds2, goroutines, goroutines2, kib, kib2)
	if fds2 > fds || goroutines2 > goroutines+2 || kib2 > kib+20<<10 || devices2 != devices || nbd2 != nbd {
		t.Errorf("devices %d -> %d, nbd size %d -> %d, and the above", devices, devices2, nbd, nbd2)
	}
}

// TestLocal runs lsad attach and lsad's ublk devices against the kernel's drivers, in one guest with one array: a boot
// and an end cost more than most of the tests.
func TestLocal(t *testing.T) {
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	vm, options := startLocal(t, map[string]string{"/usr/local/bin/ublk.test": buildTest(t, "lsad/server/ublk")})
	local(t, vm, "serve")
	for _, kind := range []struct {
		name string
		all  []localTest
	}{{"attach", attachTests}, {"ublk", ublkTests}} {
		for _, test := range kind.all {
			if !t.Run(kind.name+" "+test.name, func(t *testing.T) { test.run(t, vm) }) {
				return
			}
		}
	}
	powerLocal(t, vm, options)
}

// localTest is a test of local disks in a guest that serves. It leaves nothing attached.
type localTest struct {
	name string
	run  func(*testing.T, *guest.VM)
}

// onlySoak is a test that is left out for one that says nearly as much.
func onlySoak(why string, run func(*testing.T, *guest.VM)) func(*testing.T, *guest.VM) {
	return func(t *testing.T, vm *guest.VM) {
		guest.OnlySoak(t, why)
		run(t, vm)
	}
}

// powerLocal cuts the power of a guest that serves while file systems on its disks, one of each kind, are written, and
// holds that what was synced is there afterwards and the file systems are sound. The guest is gone then.
func powerLocal(t *testing.T, vm *guest.VM, options guest.Options) {
	attached := nbdDisk
	attached.attach = "attach vol1 " + attached.dev
	disks := map[string]localDisk{"/mnt/ublk": ublkDisk, "/mnt/attached": attached}
	local(t, vm, "lsad volume create vol1 1GiB >/dev/null")
	for dir, d := range disks {
		local(t, vm, d.attach+"; mkfs.ext4 -q -F "+d.dev+"; mkdir "+dir+"; mount "+d.dev+" "+dir+"; mkdir "+dir+"/safe "+dir+`/busy
			filetree write `+dir+`/safe 1 300
			sync -f `+dir+"/safe")
	}
	for dir := range disks {
		if _, err := vm.Go("filetree write "+dir+"/busy 2 1000000", nil); err != nil {
			t.Fatal(err)
		}
	}
	for dir := range disks {
		vm.MustRun(t, "until [ $(ls "+dir+"/busy/* | wc -l) -gt 200 ]; do sleep 0.1; done")
	}
	vm.PowerOff()

	vm = guest.Start(t, options)
	vm.MustRun(t, "mkdir /data; mount /dev/vda /data")
	local(t, vm, "again")
	for dir, d := range disks {
		local(t, vm, d.attach+"; mkdir "+dir+"; mount "+d.dev+" "+dir+`
			filetree verify `+dir+`/safe 1 300
			umount `+dir+`
			e2fsck -f -n `+d.dev+` >/tmp/fsck 2>&1 || { cat /tmp/fsck >&2; exit 1; }
			`+d.detach)
	}
	local(t, vm, "stop")
}
