package guest_test

import (
	"testing"

	"lsad/tools/guest"
)

// attachGrows holds that a volume that was made larger while its server was away, or before it was restarted, makes
// its device larger, and that who writes meanwhile sees no error.
func attachGrows(t *testing.T, vm *guest.VM) {
	local(t, vm, `attach vol0 /dev/nbd0 --timeout 40s; was=$(blockdev --getsize64 /dev/nbd0)
		fio --name=busy --filename=/dev/nbd0 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=64m --time_based --runtime=8 >/tmp/fio.out 2>&1 & fio=$!
		sleep 2; lsad volume resize vol0 1100MiB >/dev/null; kill9; again
		wait $fio || { cat /tmp/fio.out >&2; exit 1; }
		for i in $(seq 300); do [ $(blockdev --getsize64 /dev/nbd0) = $((1100<<20)) ] && break; sleep 0.1; done
		echo $was to $(blockdev --getsize64 /dev/nbd0); [ $(blockdev --getsize64 /dev/nbd0) = $((1100<<20)) ]
		dd if=/dev/zero of=/dev/nbd0 bs=1M seek=1099 count=1 oflag=direct 2>/dev/null
		lsad volume resize vol0 1200MiB >/dev/null; kill -9 $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
		kill9; again; attach vol0 /dev/nbd0
		for i in $(seq 300); do [ $(blockdev --getsize64 /dev/nbd0) = $((1200<<20)) ] && break; sleep 0.1; done
		[ $(blockdev --getsize64 /dev/nbd0) = $((1200<<20)) ]
		detach /dev/nbd0`)
}
