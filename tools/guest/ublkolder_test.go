package guest_test

import (
	"testing"

	"lsad/tools/guest"
)

// ublkOlder holds that a disk is not served over what is older than what its users know: an array that was restored from a
// copy, and a volume that was reverted by a server that did not see the disk. They see errors instead.
func ublkOlder(t *testing.T, vm *guest.VM) {
	local(t, vm, smallArrays+`
		stopped() { kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done; }
		gone() {
			grep "removed a ublk device of an earlier server" $1/log >/dev/null || { cat $1/log >&2; return 1; }
			[ ! -e /dev/ublkb0 ]; ! dd if=/dev/zero of=/mnt/over bs=4k count=1 oflag=direct 2>/dev/null; umount -l /mnt
		}
		small a $new; at a ublk add v >/dev/null; mkfs.ext4 -q /dev/ublkb0; mount /dev/ublkb0 /mnt; echo first >/mnt/first; sync -f /mnt
		stopped; cp -a a copy
		small a; echo second >/mnt/second; sync -f /mnt; stopped
		mv a newer; mv copy a
		small a; grep "restored from a copy" a/log >/dev/null; gone a; stopped
		small a; ! grep -c "restored from a copy" a/log | grep -v 1; stopped

		small b $new; at b volume snapshot v@old >/dev/null
		at b ublk add v >/dev/null; mkfs.ext4 -q /dev/ublkb0; mount /dev/ublkb0 /mnt; sync -f /mnt
		kill -9 $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done
		mv /dev/ublk-control /dev/hidden; small b; at b volume revert v@old >/dev/null; stopped; mv /dev/hidden /dev/ublk-control
		small b; gone b; at b ublk add v >/dev/null; [ "$(dd if=/dev/ublkb0 bs=4k count=1 2>/dev/null | tr -d '\0' | wc -c)" = 0 ]; at b ublk del v >/dev/null; stopped
		rm -rf a b newer; cd /data; again`)
}
