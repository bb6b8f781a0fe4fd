package memguest

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lsad/memsvc/qemu"
)

// TestRestoreHugePages resumes a VM in a QEMU whose RAM is on huge pages, each of which has to come as a whole.
func TestRestoreHugePages(t *testing.T) {
	ctx := withPatience(t)
	const mib = 128
	reserveHugePages(t, mib/2)
	meminfo, err := os.ReadFile("/proc/meminfo")
	check(t, err)
	free := 0
	if m := regexp.MustCompile(`HugePages_Free: +(\d+)`).FindSubmatch(meminfo); m != nil {
		free, _ = strconv.Atoi(string(m[1])) // digits
	}
	if free < mib/2 {
		t.Skipf("%d huge pages of 2 MiB are free, %d are needed (/proc/sys/vm/nr_hugepages)", free, mib/2)
	}
	o := Options{MemoryMiB: mib, UsedMiB: 24}
	vm := start(t, o)
	check(t, vm.WaitLine(ctx, "ready"))
	in, ram := save(t, ctx, vm)
	vm.Close()
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

// reserveHugePages has the kernel set huge pages aside, if it can and may.
func reserveHugePages(t *testing.T, n int) {
	t.Helper()
	const path = "/proc/sys/vm/nr_hugepages"
	old, err := os.ReadFile(path)
	if err != nil {
		return // the test tells how many there are
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(old)))
	if err != nil || os.WriteFile(path, []byte(strconv.Itoa(before+n)), 0) != nil {
		return
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
}
