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
// flags of a thread say so. Workers that the kernel made for a ring before there was a disk, and which end by
// themselves, are not the server's.
func ublkFlusher(t *testing.T, vm *guest.VM) {
	got := local(t, vm, `lsad ublk add vol0 >/dev/null; dd if=/dev/zero of=/dev/ublkb0 bs=4k count=256 oflag=direct 2>/dev/null
		for s in /proc/$(cat /run/lsad.pid)/task/*/stat; do
			read -r pid name state rest <$s || continue
			case $name in "(iou-wrk-"*) continue;; esac
			[ $(( $(echo $rest | cut -d ' ' -f 6) & 0x180000 )) = 1572864 ] || echo $pid $name $state $(cat ${s%stat}wchan)
		done
		lsad ublk del vol0 >/dev/null`)
	if got != "" {
		t.Errorf("threads without the flags: %q", got)
	}
}

// smallArrays is a script that stops the server and defines how others are started, each in a directory of its own, with
// an array that is quickly copied or filled.
const smallArrays = `
	stop; mkdir -p /data/small; cd /data/small
	# small DIRECTORY [FLAG...]: start a server; its process is $pid.
	small() {
		mkdir -p $1; cd $1; shift; : >out
		lsad serve --http=none --map-cache=16MiB "$@" >out 2>>log & pid=$!
		for i in $(seq 600); do
			grep -q "lsad serves" out && { cd ..; return 0; }
			kill -0 $pid 2>/dev/null || break
			sleep 0.1
		done
		cat log >&2
		return 1
	}
	new="--segment-size=1MiB --device=lsad-data/d0:64MiB --device=lsad-data/d1:64MiB --volume=v:512MiB"
	end() {
		kill $1 $2
		for i in $(seq 2400); do kill -0 $2 2>/dev/null || return 0; sleep 0.05; done
		echo "the server does not end: $2 $(cat /proc/$2/stack)" >&2; cat */log >&2; return 1
	}
	at() { (cd $1; shift; lsad "$@"); }
`

// ublkSmall holds, with small arrays, that a server on a copy of an array leaves the disk of the other alone, that a
// disk whose cache does not fit into its array waits for the next server, and that one is not served again over an
// array that may have lost writes.
func ublkSmall(t *testing.T, vm *guest.VM) {
	local(t, vm, smallArrays+`
		small a $new; end -TERM $pid; cp -a a b
		small a; a=$pid; at a ublk add v >/dev/null
		small b; b=$pid; grep -q "left alone" b/log; at b ublk list | grep "another server serves it" >/dev/null
		! at b ublk del v --force 2>err; grep -q "another server serves it" err
		end -TERM $b; dd if=/dev/zero of=/dev/ublkb0 bs=4k count=1 oflag=direct 2>/dev/null

		# 200 MiB do not fit into 128, however much of it the kernel has written by itself when the server is told to stop.
		echo 80 >/proc/sys/vm/dirty_ratio; echo 80 >/proc/sys/vm/dirty_background_ratio; echo 100000 >/proc/sys/vm/dirty_expire_centisecs
		(exec 9</dev/ublkb0; dd if=/dev/urandom of=/dev/ublkb0 bs=1M count=200 conv=notrunc 2>/dev/null; : >written; sleep 200) & writer=$!
		for i in $(seq 1200); do [ -e written ] && break; sleep 0.1; done; [ -e written ]
		end -TERM $a; grep -q "could not be removed in order" a/log; [ -e /dev/ublkb0 ]; kill $writer
		small a; a=$pid; grep -q "took over" a/log; at a ublk del v --force >/dev/null; end -TERM $a

		rm -r b; small b $new; b=$pid; at b ublk add v >/dev/null; dd if=/dev/zero of=/dev/ublkb0 bs=4k count=100 oflag=direct 2>/dev/null
		end -KILL $b; D=$(find b -name d1); mv $D gone
		small b --degraded; b=$pid; at b ublk list | grep "waiting.*may lack writes" >/dev/null
		end -TERM $b; mv gone $D; small b; b=$pid; at b ublk list | grep live >/dev/null
		dd if=/dev/zero of=/dev/ublkb0 bs=4k count=1 oflag=direct 2>/dev/null; end -TERM $b; [ ! -e /dev/ublkb0 ]
		cd /data; rm -rf small; again`)
}
