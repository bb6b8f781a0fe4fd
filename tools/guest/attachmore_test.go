package guest_test

import (
	"testing"

	"lsad/tools/guest"
)

// attachGrows holds that a volume that was made larger while its server was away, or before it was restarted, makes
// its device larger, and that who writes meanwhile sees no error.
func attachGrows(t *testing.T, vm *guest.VM) {
	local(t, vm, `lsad volume create grows 1GiB >/dev/null; attach grows /dev/nbd0 --timeout 40s; was=$(blockdev --getsize64 /dev/nbd0)
		fio --name=busy --filename=/dev/nbd0 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=64m --time_based --runtime=8 >/tmp/fio.out 2>&1 & fio=$!
		sleep 2; lsad volume resize grows 1100MiB >/dev/null; kill9; again
		wait $fio || { cat /tmp/fio.out >&2; exit 1; }
		for i in $(seq 300); do [ $(blockdev --getsize64 /dev/nbd0) = $((1100<<20)) ] && break; sleep 0.1; done
		echo $was to $(blockdev --getsize64 /dev/nbd0); [ $(blockdev --getsize64 /dev/nbd0) = $((1100<<20)) ]
		dd if=/dev/zero of=/dev/nbd0 bs=1M seek=1099 count=1 oflag=direct 2>/dev/null
		lsad volume resize grows 1200MiB >/dev/null; kill -9 $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
		kill9; again; attach grows /dev/nbd0
		for i in $(seq 300); do [ $(blockdev --getsize64 /dev/nbd0) = $((1200<<20)) ] && break; sleep 0.1; done
		[ $(blockdev --getsize64 /dev/nbd0) = $((1200<<20)) ]
		detach /dev/nbd0; lsad volume delete grows`)
}

// attachEndsInOutage holds that lsad attach, told to end while the server is away, writes out what is cached when the
// server is back.
func attachEndsInOutage(t *testing.T, vm *guest.VM) {
	local(t, vm, `attach vol0 /dev/nbd0 --timeout 1m; head -c 4096 /dev/urandom >/tmp/want
		exec 9</dev/nbd0; dd if=/tmp/want of=/dev/nbd0 bs=4096 conv=notrunc 2>/dev/null
		stop; kill $(cat /run/attach.pid); sleep 2; again 9<&-
		status=0; wait $(cat /run/attach.pid) || status=$?; exec 9<&-; [ $status = 0 ]
		attach vol0 /dev/nbd0; cmp -n 4096 /tmp/want /dev/nbd0; detach /dev/nbd0`)
}

// attachFails holds that an attachment that fails leaves no device behind, and that one whose server does not come
// back in time ends with errors for who uses it.
func attachFails(t *testing.T, vm *guest.VM) {
	local(t, vm, `rm -f /run/lsad-nbd0.lock; mkdir /run/lsad-nbd0.lock
		! lsad attach vol0 2>/tmp/err; grep -q lsad-nbd0.lock /tmp/err; [ "$(lsad attach --list --json)" = "[]" ]; rmdir /run/lsad-nbd0.lock
		attach vol0 /dev/nbd0 --timeout 3s; stop
		! dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/tmp/err; grep -q "Input/output error" /tmp/err
		status=0; wait $(cat /run/attach.pid) || status=$?; [ $status = 1 ]; grep -q "did not come back in time" /run/attach.log
		again; [ "$(lsad attach --list --json)" = "[]" ]`)
}

// attachRemote attaches over TCP, as another machine does, and restarts the server.
func attachRemote(t *testing.T, vm *guest.VM) {
	local(t, vm, `stop; again --nbd 127.0.0.1:10809 --nbd unix:/data/lsad-data/nbd.sock; head -c 1000000 /dev/urandom >/tmp/want
		attach nbd://127.0.0.1:10809/vol0 /dev/nbd0 --connections 2; lsad attach --list | grep -q "tcp:127.0.0.1:10809.*watched"
		dd if=/tmp/want of=/dev/nbd0 conv=fsync,notrunc 2>/dev/null; kill9; again --nbd 127.0.0.1:10809 --nbd unix:/data/lsad-data/nbd.sock
		echo 3 >/proc/sys/vm/drop_caches; cmp -n 1000000 /tmp/want /dev/nbd0
		/usr/local/bin/blkdiscard -z /dev/nbd0 -l 1048576; cmp -n 1048576 /dev/zero /dev/nbd0
		detach /dev/nbd0; stop; again`)
}

// attachReverted holds that a volume that was reverted after a restart of the server, before the attachment came back,
// is not taken for what was attached. (What watches it is stopped meanwhile: it would be too quick.)
func attachReverted(t *testing.T, vm *guest.VM) {
	local(t, vm, `attach vol0 /dev/nbd0; lsad volume snapshot vol0@then >/dev/null; dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null
		kill -STOP $(cat /run/attach.pid); kill9; again; lsad volume revert vol0@then >/dev/null; kill -CONT $(cat /run/attach.pid)
		status=0; wait $(cat /run/attach.pid) || status=$?; [ $status = 1 ]; grep -q "its incarnation was" /run/attach.log
		! dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null; [ "$(lsad attach --list --json)" = "[]" ]
		lsad volume delete vol0@then >/dev/null; attach vol0 /dev/nbd0; detach /dev/nbd0; : >/run/attach.log`)
}

// attachTakenOver holds that a device that nobody watches is taken over without being named, with another number of
// connections and by another address, that one that is watched is not, and what is said where it is another volume's.
func attachTakenOver(t *testing.T, vm *guest.VM) {
	local(t, vm, `unwatch() { kill -9 $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done; }
		stop; again --nbd 127.0.0.1:10809 --nbd unix:/data/lsad-data/nbd.sock; attach vol0 /dev/nbd0 --connections 3; first=$(cat /run/attach.pid)
		attach vol0; [ $(cat /run/attach.out) = /dev/nbd1 ]; detach /dev/nbd1; echo $first >/run/attach.pid
		unwatch; kill9; again --nbd 127.0.0.1:10809 --nbd unix:/data/lsad-data/nbd.sock
		attach vol0; [ $(cat /run/attach.out) = /dev/nbd0 ]; grep -q "keeps the number of connections" /run/attach.log
		lsad attach --list | grep -q "1.0 GiB  3  *watched"; dd if=/dev/nbd0 of=/dev/null bs=1M count=8 iflag=direct 2>/dev/null
		unwatch; lsad volume create other 1GiB >/dev/null
		! lsad attach other /dev/nbd0 2>/tmp/err; grep -q 'attached to "vol0" of unix:/data' /tmp/err; [ $(grep -c lsad1 /tmp/err) = 0 ]
		attach nbd://127.0.0.1:10809/vol0 /dev/nbd0 --connections 1; dd if=/dev/zero of=/dev/nbd0 bs=4k count=1 oflag=direct 2>/dev/null
		kill9; again --nbd 127.0.0.1:10809 --nbd unix:/data/lsad-data/nbd.sock; dd if=/dev/nbd0 of=/dev/null bs=1M count=8 iflag=direct 2>/dev/null
		lsad attach --list; detach /dev/nbd0; lsad volume delete other; stop; again`)
}

// attachForeign holds that what another program connected is not disconnected without --force, and that a device that is
// merely open is not called attached.
func attachForeign(t *testing.T, vm *guest.VM) {
	local(t, vm, `exec 9</dev/nbd1; lsad attach --list | grep -q disconnected
		! lsad detach /dev/nbd1 2>/tmp/err; grep -q "something merely has it open" /tmp/err; exec 9<&-
		stop; again --nbd 127.0.0.1:10809 --nbd unix:/data/lsad-data/nbd.sock; nbd-client 127.0.0.1 10809 /dev/nbd1 -N vol0 >/dev/null 2>&1
		lsad attach --list | grep -q "nbd1.*foreign"; ! lsad detach /dev/nbd1 2>/tmp/err; grep -q "lsad detach --force" /tmp/err
		lsad attach --list | grep -q "nbd1.*foreign"; lsad detach --force /dev/nbd1; [ "$(lsad attach --list --json)" = "[]" ]; stop; again`)
}

// attachUnwatchedFails holds that detach of an unwatched device whose server is gone names --force, and that one that was
// disconnected while it was open is not taken over.
func attachUnwatchedFails(t *testing.T, vm *guest.VM) {
	local(t, vm, `attach vol0 /dev/nbd0 --timeout 2s; kill -9 $(cat /run/attach.pid); while kill -0 $(cat /run/attach.pid) 2>/dev/null; do sleep 0.05; done
		stop; ! lsad detach /dev/nbd0 2>/tmp/err; grep -q "lsad detach --force /dev/nbd0" /tmp/err; ! lsad attach vol0 2>/tmp/err; grep -q "start it with" /tmp/err
		exec 9</dev/nbd0; lsad detach --force /dev/nbd0; again 9<&-
		! lsad attach vol0 /dev/nbd0 2>/tmp/err; grep -q "disconnected while something had it open" /tmp/err || { cat /tmp/err >&2; exit 1; }
		attach vol0 9<&-; [ $(cat /run/attach.out) = /dev/nbd1 ]; exec 9<&-; detach /dev/nbd1; [ "$(lsad attach --list --json)" = "[]" ]`)
}
