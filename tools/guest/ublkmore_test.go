package guest_test

import (
	"testing"

	"lsad/tools/guest"
)

// ublkTwoQueues is vol0 with a queue for each processor of the guest.
var ublkTwoQueues = localDisk{dev: ublkDisk.dev, attach: "lsad ublk add vol0 --queues 2 >/dev/null", detach: ublkDisk.detach}

// ublkWaits holds what is refused while a disk waits that could not be taken over, what the list says of it, and that
// it can be removed by force, with an error for who waits. (It cannot be taken over as the driver's side of it is
// not where it should be.)
func ublkWaits(t *testing.T, vm *guest.VM) {
	local(t, vm, `lsad ublk add vol0 >/dev/null; lsad volume snapshot vol0@before >/dev/null; kill9
		mv /dev/ublkc0 /dev/hidden; touch /dev/ublkc0
		(! dd if=/dev/zero of=/dev/ublkb0 bs=4k count=1 oflag=direct 2>/tmp/dd) & dd=$!
		again; grep -q "waits on" /run/lsad.log
		lsad ublk list | grep -E "/dev/ublkb0 +vol0 .* waiting .*take /dev/ublkb0 over"
		! lsad ublk add vol0 2>/tmp/err; grep -q "waits for the server to take it over" /tmp/err
		for change in "delete vol0" "revert vol0@before" "resize vol0 512MiB --force"; do
			! lsad volume $change 2>/tmp/err || exit 1
			grep "in use by ublk" /tmp/err >/dev/null || { cat /tmp/err >&2; exit 1; }
		done
		! lsad ublk del vol0 2>/tmp/err; grep -q -e "--force" /tmp/err
		rm /dev/ublkc0; mv /dev/hidden /dev/ublkc0; lsad ublk del --force vol0
		wait $dd; grep -q "Input/output error" /tmp/dd; [ ! -e /dev/ublkb0 ]; [ "$(lsad ublk list --json)" = "[]" ]
		lsad volume revert vol0@before >/dev/null; lsad volume delete vol0@before >/dev/null`)
}

// ublkFlusher holds that no thread of a server with a disk waits for its own disk when memory is short: the kernel's
// flags of a thread say so.
func ublkFlusher(t *testing.T, vm *guest.VM) {
	got := local(t, vm, `lsad ublk add vol0 >/dev/null; dd if=/dev/zero of=/dev/ublkb0 bs=4k count=256 oflag=direct 2>/dev/null
		for s in /proc/$(cat /run/lsad.pid)/task/*/stat; do echo $(( $(cut -d ' ' -f 9 $s) & 0x180000 )); done | sort -u
		lsad ublk del vol0 >/dev/null`)
	if got != "1572864\n" {
		t.Errorf("threads have the flags %q", got)
	}
}
