package memguest

import (
	"testing"

	"lsad/internal/hugetlb"
	"lsad/memsvc/qemu"
)

// TestRestoreHugePages resumes a VM in a QEMU whose RAM is on huge pages, each of which has to come as a whole.
func TestRestoreHugePages(t *testing.T) {
	ctx := withPatience(t)
	const mib = 128
	o := Options{MemoryMiB: mib, UsedMiB: 24}
	vm := start(t, o)
	check(t, vm.WaitLine(ctx, "ready"))
	in, ram := save(t, ctx, vm)
	vm.Close()
	hugetlb.Reserve(t, mib/2)
	o.Incoming = true
	o.Args = []string{"-object", "memory-backend-memfd,id=pc.ram,hugetlb=on,hugetlbsize=2M,size=128M", "-machine", "memory-backend=pc.ram"}
	vm = start(t, o)
	path := unixPath(t, "to")
	check(t, vm.Receive(ctx, "unix:"+path))
	p, err := qemu.Restore(ctx, qemu.RestoreOptions{
		State: in.State, RAM: ram, Dial: dialUnix(path), HugePages: map[string]int64{"pc.ram": 2 << 20},
	})
	check(t, err)
	t.Logf("restored: %+v", p)
	check(t, vm.WaitRounds(ctx, 3))
}
