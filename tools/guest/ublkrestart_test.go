package guest_test

import (
	"os"
	"strconv"
	"testing"

	"lsad/tools/guest"
)

// ublkRestarts restarts and kills the server again and again while a file system on its disk is written with many
// requests under way, and holds that each next server gets the disk and that all is sound afterwards. What the driver must
// not see is a queue's ring that is closed while requests are still handed to its thread: it would wait for them for ever.
func ublkRestarts(t *testing.T, vm *guest.VM) {
	rounds := 8
	if os.Getenv("LSAD_SOAK") != "" {
		rounds = 50
	}
	local(t, vm, "N="+strconv.Itoa(rounds)+"\n"+`lsad ublk add vol0 --queues 2 >/dev/null; mkfs.ext4 -q -F /dev/ublkb0; mount /dev/ublkb0 /mnt
		mkdir /mnt/tree; filetree write /mnt/tree 1 100; sync -f /mnt
		fio --name=busy --directory=/mnt --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=32 --numjobs=2 --size=32m \
			--time_based --runtime=1d >/tmp/fio.out 2>&1 & fio=$!
		(
			for i in $(seq $N); do
				sleep 0.$((i % 4)); echo round $i
				if [ $((i % 3)) = 0 ]; then kill9; else stop; fi
				again
			done
		) >/tmp/rounds 2>&1 & rounds=$!
		for i in $(seq $((N*300))); do kill -0 $rounds 2>/dev/null || break; sleep 0.1; done
		if kill -0 $rounds 2>/dev/null; then
			echo "stuck:"; cat /tmp/rounds; echo w >/proc/sysrq-trigger; sleep 1; dmesg | tail -n 200; exit 1
		fi
		wait $rounds; kill -INT $fio; wait $fio || cat /tmp/fio.out
		umount /mnt; e2fsck -f -n /dev/ublkb0 >/dev/null 2>&1
		mount /dev/ublkb0 /mnt; filetree verify /mnt/tree 1 100; umount /mnt; lsad ublk del vol0`)
}
