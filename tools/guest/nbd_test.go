package guest_test

import (
	"crypto/md5"
	"fmt"
	"strings"
	"testing"
	"time"

	"lsad/tools/guest"
)

// kernelTools are the programs of the host that the tests of the kernel's NBD
// client use.
var kernelTools = []string{
	"nbd-client", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "blkdiscard", "fstrim", "fio",
}

// startClient boots a guest with the NBD driver and what the tests run in it.
func startClient(t *testing.T) *guest.VM {
	t.Helper()
	files := map[string]string{"/etc/mke2fs.conf": "/etc/mke2fs.conf"}
	for _, name := range []string{"filetree", "gonbd", "stamps"} {
		files["/usr/local/bin/"+name] = buildTool(t, name)
	}
	return guest.Start(t, guest.Options{
		MemoryMiB: 768,
		Modules:   []string{"nbd nbds_max=2", "ext4", "xfs"},
		Tools:     kernelTools,
		Files:     files,
	})
}

// attach connects /dev/nbd0 to the server's volume over generic netlink, with
// two connections, and waits until the device has its size.
func attach(t *testing.T, vm *guest.VM, s *nbdServer) {
	t.Helper()
	vm.MustRun(t, fmt.Sprintf("nbd-client -N vol0 %s %d /dev/nbd0 -C 2", guest.HostIP, s.port))
	waitSize(t, vm)
}

func waitSize(t *testing.T, vm *guest.VM) {
	t.Helper()
	got := vm.MustRun(t, `
		for i in $(seq 1800); do [ "$(cat /sys/block/nbd0/size)" != 0 ] && break; sleep 0.1; done
		blockdev --getsize64 /dev/nbd0`)
	if strings.TrimSpace(got) != fmt.Sprint(int64(volumeSize)) {
		t.Fatalf("the device has %s bytes instead of %d", got, int64(volumeSize))
	}
}

func detach(t *testing.T, vm *guest.VM) {
	t.Helper()
	vm.MustRun(t, "nbd-client -d /dev/nbd0")
}

// TestNBD runs Linux's own NBD client, and go-nbd's way of using it, against a
// server. One guest serves all, since booting takes longer than most of the
// tests; each starts from a server of its own and a guest with nothing
// attached.
func TestNBD(t *testing.T) {
	vm := startClient(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *guest.VM)
	}{
		{"device", deviceTest},
		{"ext4", func(t *testing.T, vm *guest.VM) {
			fileSystemTest(t, vm, fileSystem{"mkfs.ext4 -q -F /dev/nbd0", "e2fsck -f -n /dev/nbd0"})
		}},
		{"xfs", func(t *testing.T, vm *guest.VM) {
			fileSystemTest(t, vm, fileSystem{"mkfs.xfs -q -f /dev/nbd0", "xfs_repair -n /dev/nbd0"})
		}},
		{"blocks survive a killed server", blocksKillTest},
		{"ext4 survives a killed server", ext4KillTest},
		{"go-nbd client", goNBDTest},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, vm)
			reset(t, vm)
		})
	}
}

// reset takes from the guest whatever a test that failed left in it.
func reset(t *testing.T, vm *guest.VM) {
	t.Helper()
	if !t.Failed() {
		return
	}
	_, err := vm.Run(t.Context(), "umount -f /mnt; umount -l /mnt; nbd-client -d /dev/nbd0; nbd-client -d /dev/nbd1")
	if err != nil {
		t.Log(err)
	}
}

// deviceTest looks at the bare device: what the kernel understood of the
// handshake, data in and out, discards.
func deviceTest(t *testing.T, vm *guest.VM) {
	s := startServer(t, *serverFlag)
	attach(t, vm, s)
	got := vm.MustRun(t, `cd /sys/block/nbd0; cat ro queue/write_cache queue/fua; [ $(cat queue/discard_max_bytes) -gt 0 ] && echo discard`)
	if want := "0\nwrite back\n1\ndiscard\n"; got != want {
		t.Errorf("the kernel understood %q, want %q", got, want)
	}
	fioVerify(t, vm)
	discardTest(t, vm)
	detach(t, vm)
}

// fioVerify writes blocks of mixed sizes at random places, queued deep, some
// of them flushed, and reads each of them back.
func fioVerify(t *testing.T, vm *guest.VM) {
	t.Helper()
	vm.MustRun(t, `fio --name=verify --filename=/dev/nbd0 --direct=1 --ioengine=libaio --iodepth=32 \
		--rw=randwrite --bsrange=4k-128k --blockalign=4k --size=16m --io_size=6m --fsync=64 --randseed=1 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse --terse-version=3 >/tmp/fio.out 2>&1 ||
		{ cat /tmp/fio.out >&2; exit 1; }`)
}

// discardTest holds that a discard of the whole device leaves zeros where fio
// wrote.
func discardTest(t *testing.T, vm *guest.VM) {
	t.Helper()
	const sum = "dd if=/dev/nbd0 bs=1M count=16 iflag=direct 2>/dev/null | md5sum"
	zeros := fmt.Sprintf("%x  -\n", md5.Sum(make([]byte, 16<<20)))
	if got := vm.MustRun(t, sum); got == zeros {
		t.Error("fio left nothing that could be discarded")
	}
	if got := vm.MustRun(t, "blkdiscard /dev/nbd0; "+sum); got != zeros {
		t.Error("not all is zero after a discard of the device")
	}
}

// fileSystem is a file system to try on the volume.
type fileSystem struct {
	mkfs, fsck string
}

// fileSystemTest is the life of a file system: made, filled, unmounted,
// detached, attached, checked, mounted, found intact, trimmed, checked again.
func fileSystemTest(t *testing.T, vm *guest.VM, fsys fileSystem) {
	// lsad keeps the room of a few emptied segments of each device for what
	// is written next. With small ones that is little beside what is trimmed.
	s := startServer(t, *serverFlag, "--segment-size", "512KiB")
	attach(t, vm, s)
	vm.MustRun(t, fsys.mkfs+"; mount /dev/nbd0 /mnt; mkdir /mnt/tree")
	t.Log(vm.MustRun(t, "filetree write /mnt/tree 1 200; filetree verify /mnt/tree 1 200"))
	vm.MustRun(t, "umount /mnt")
	detach(t, vm)
	attach(t, vm, s)
	vm.MustRun(t, fsys.fsck+" >/tmp/fsck 2>&1 || { cat /tmp/fsck >&2; exit 1; }")
	vm.MustRun(t, "mount /dev/nbd0 /mnt; filetree verify /mnt/tree 1 200")
	trimTest(t, vm, s)
	vm.MustRun(t, `filetree verify /mnt/tree 1 200; umount /mnt; `+fsys.fsck+" >/tmp/fsck 2>&1 || { cat /tmp/fsck >&2; exit 1; }")
	detach(t, vm)
}

// largeFile is the size in bytes of the file that trimTest makes.
const largeFile = 32 << 20

// trimTest holds that the server knows of a deleted file's space once fstrim
// has ended, and that the host gets it back.
func trimTest(t *testing.T, vm *guest.VM, s *nbdServer) {
	t.Helper()
	vm.MustRun(t, "sync; fstrim /mnt")
	before := s.used()
	vm.MustRun(t, fmt.Sprintf(`
		head -c 1048576 /dev/urandom > /tmp/random
		for i in $(seq %d); do cat /tmp/random; done > /mnt/large
		sync`, largeFile>>20))
	full := s.used()
	if full-before < largeFile/2 {
		t.Errorf("a file of %d bytes took %d on the host: the measure is wrong", largeFile, full-before)
	}
	var mapped int64
	if s.kind == "lsad" {
		mapped = s.mapped()
	}
	vm.MustRun(t, "rm /mnt/large; sync; fstrim /mnt")
	if s.kind == "lsad" {
		if unmapped := unmappedBy(t, vm, s, mapped); unmapped < largeFile*9/10 {
			t.Errorf("of a file of %d bytes fstrim unmapped %d", largeFile, unmapped)
		}
	}
	freed := waitFreed(s, full)
	t.Logf("on the host: %d MiB before, %d MiB with the file, %d MiB freed by fstrim", before>>20, full>>20, freed>>20)
	if freed < largeFile/2 {
		t.Errorf("of a file of %d bytes fstrim gave the host %d back", largeFile, freed)
	}
}

// unmappedBy returns how much less than before lsad has mapped. xfs frees the
// blocks of a deleted file in the background, so the first fstrim may come too
// early; what a trim covers is unmapped when it returns.
func unmappedBy(t *testing.T, vm *guest.VM, s *nbdServer, before int64) int64 {
	t.Helper()
	for try := 0; ; try++ {
		unmapped := before - s.mapped()
		if unmapped >= largeFile*9/10 || try == 10 {
			return unmapped
		}
		vm.MustRun(t, "sleep 1; sync; fstrim /mnt")
	}
}

// waitFreed waits for most of the large file's space, which may come back a
// while after the trim, once a checkpoint allows it, and returns how much did.
func waitFreed(s *nbdServer, full int64) int64 {
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		freed := full - s.used()
		if freed >= largeFile/2 || time.Now().After(deadline) {
			return freed
		}
	}
}
