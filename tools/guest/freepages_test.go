package guest_test

import (
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/guestmem"
	"lsad/tools/guest"
)

// ramDir returns a directory in memory, where a guest's RAM is as fast as
// without a file.
func ramDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lsad-guest-")
	if err != nil {
		t.Skipf("no place in memory for a guest's RAM: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// mapRAM maps a guest's RAM file; what is beyond low bytes is at 4 GiB.
func mapRAM(t *testing.T, path string, low int64) *guestmem.Memory {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(data) })
	low = min(low, info.Size())
	ranges := []guestmem.Range{{GPA: 0, Data: data[:low], Extents: extents(t, f, 0, low)}}
	if low < info.Size() {
		ranges = append(ranges, guestmem.Range{GPA: 4 << 30, Data: data[low:], Extents: extents(t, f, low, info.Size())})
	}
	m, err := guestmem.NewMemory(ranges)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// extents returns where a part of a file has no holes.
func extents(t *testing.T, f *os.File, begin, end int64) []guestmem.Extent {
	t.Helper()
	found := []guestmem.Extent{}
	for off := begin; off < end; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO || (err == nil && data >= end) {
			break
		}
		hole, err2 := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		off = min(hole, end)
		found = append(found, guestmem.Extent{Off: uint64(data - begin), Len: uint64(off - data)})
	}
	return found
}

// punch makes holes in a RAM file where pages are free, so that they read as
// zeros.
func punch(t *testing.T, path string, set *guestmem.PageSet) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for first, n := range set.Runs() {
		const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		err := unix.Fallocate(int(f.Fd()), mode, int64(first*guestmem.PageSize), int64(n*guestmem.PageSize))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func qmp(t *testing.T, vm *guest.VM, command string, arguments any) {
	t.Helper()
	if _, err := vm.QMP(t.Context(), command, arguments); err != nil {
		t.Fatal(err)
	}
}

// TestFreePages compares the pages that guestmem finds free in stopped guests
// with what the guests say themselves and with what makedumpfile finds, and
// then takes those pages away: the guest must go on as if nothing had happened.
// Two of the guests go on to further tests, which saves booting more.
func TestFreePages(t *testing.T) {
	for name, test := range map[string]struct {
		options guest.Options
		low     int64 // RAM below 4 GiB, in bytes
		levels  int
		more    func(t *testing.T, vm *guest.VM, ram string)
		soak    bool
	}{
		"6.12":                  {guest.Options{CPUs: 3}, 1 << 40, 4, atAnyMoment, false},
		"6.1, five levels":      {guest.Options{Kernel: "6.1", CPUs: 2}, 1 << 40, 5, afterReset, false},
		"6.1, four levels":      {guest.Options{Kernel: "6.1", CPU: "max,la57=off"}, 1 << 40, 4, nil, true},
		"6.12, RAM over 4 GiB":  {guest.Options{MemoryMiB: 4608, CPUs: 2}, 3 << 30, 4, nil, true},
		"6.1 on q35, over 4GiB": {guest.Options{Kernel: "6.1", MemoryMiB: 3072, Machine: "q35", Append: "hugetlb_free_vmemmap=on hugepages=32"}, 2 << 30, 5, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if test.soak {
				guest.OnlySoak(t, "others have this kernel, such page tables and such a gap in their RAM")
			}
			dir := ramDir(t)
			o := test.options
			o.MemoryFile = filepath.Join(dir, "ram")
			o.Modules = []string{"qemu_fw_cfg"} // tells QEMU where the note is
			o.QEMU = []string{"-device", "vmcoreinfo"}
			o.Files = map[string]string{"/random": randomFile(t)}
			vm := guest.Start(t, o)
			sum := vm.MustRun(t, `
				for n in 1 2; do cat /random; done > /tmp/kept
				for n in 1 2 3 4; do cat /tmp/kept; done > /tmp/gone
				cat /random > /tmp/kept2
				rm /tmp/gone
				dmesg -c > /dev/null
				md5sum /tmp/kept /tmp/kept2`)
			said := freePages(t, vm.MustRun(t, "cat /proc/zoneinfo"))
			qmp(t, vm, "stop", nil)

			m := mapRAM(t, o.MemoryFile, test.low)
			set, r, err := guestmem.FreePages(t.Context(), m, guestmem.Options{})
			if err != nil || set == nil {
				t.Fatalf("%+v, %v", r, err)
			}
			t.Logf("%+v; the guest said %d", r, said)
			if r.Kernel != vm.Release || r.Levels != test.levels {
				t.Errorf("kernel %s with %d levels, want %s with %d", r.Kernel, r.Levels, vm.Release, test.levels)
			}
			// What printed the number took some memory, and gave it back.
			if diff := int64(r.Free) - int64(said); diff < -2048 || diff > 2048 {
				t.Errorf("%d free pages, the guest said %d", r.Free, said)
			}
			if o.MemoryMiB == 0 { // a core of the larger ones takes long
				compareDump(t, vm, dir, m, set)
			}

			punch(t, o.MemoryFile, set)
			qmp(t, vm, "cont", nil)
			if got := vm.MustRun(t, "md5sum /tmp/kept /tmp/kept2"); got != sum {
				t.Errorf("the sum of a file has changed:\n%s%s", sum, got)
			}
			// A processor that a busy host does not run looks stuck, which is no damage.
			vm.MustRun(t, `
				for n in 1 2 3 4; do cat /tmp/kept; done > /tmp/again
				cmp -n 16777216 /tmp/again /tmp/kept
				sync
				if dmesg | grep -v 'soft lockup' | grep -iwE 'bug|oops|corrupt|corrupted|corruption|bad page'; then exit 1; fi`)
			if test.more != nil {
				test.more(t, vm, o.MemoryFile)
			}
		})
	}
}

// atAnyMoment stops a guest again and again while all its processors take and
// free memory, so that blocks are on their way between lists.
func atAnyMoment(t *testing.T, vm *guest.VM, ram string) {
	vm.MustRun(t, "rm /tmp/again") // room for the load
	churn, err := vm.Go(`
		for n in 1 2 3; do
			while :; do head -c 20m /dev/zero > /tmp/$n; rm /tmp/$n; done &
		done
		wait`, nil)
	if err != nil {
		t.Fatal(err)
	}
	moving := 0
	const stops = 30
	for i := range stops {
		qmp(t, vm, "stop", nil)
		set, r, err := guestmem.FreePages(t.Context(), mapRAM(t, ram, 1<<40), guestmem.Options{})
		if err != nil || set == nil {
			t.Fatalf("stop %d: %+v, %v", i, r, err)
		}
		if r.Free != r.ZoneFree {
			moving++
		}
		qmp(t, vm, "cont", nil)
		time.Sleep(time.Duration(i) * time.Millisecond) // any moment will do
	}
	t.Logf("a block was on its way in %d of %d stops", moving, stops)
	churn.Kill()
	if _, err := churn.Wait(t.Context()); err == nil {
		t.Error("the load had ended before it was killed")
	}
}

// afterReset holds that what an earlier life of the machine left in its RAM,
// notes and memory maps among it, does not mislead.
func afterReset(t *testing.T, vm *guest.VM, ram string) {
	if err := vm.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := vm.MustRun(t, "for n in 1 2 3; do cat /random; done > /tmp/kept; md5sum /tmp/kept")
	qmp(t, vm, "stop", nil)
	memory := mapRAM(t, ram, 1<<40) // where the first life had holes in the file this one need not
	set, r, err := guestmem.FreePages(t.Context(), memory, guestmem.Options{})
	t.Logf("%+v", r)
	if err != nil || set == nil {
		t.Fatal(err)
	}
	punch(t, ram, set)
	qmp(t, vm, "cont", nil)
	if got := vm.MustRun(t, "md5sum /tmp/kept"); got != sum {
		t.Errorf("the sum of a file has changed:\n%s%s", sum, got)
	}
}

// freePages adds up the "pages free" lines of /proc/zoneinfo.
func freePages(t *testing.T, zoneinfo string) uint64 {
	t.Helper()
	var sum uint64
	for _, match := range regexp.MustCompile(`pages free +(\d+)`).FindAllStringSubmatch(zoneinfo, -1) {
		n, err := strconv.ParseUint(match[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// compareDump compares with makedumpfile's count of free pages in a core of the
// same stopped guest, and tries the CR3 that the core has.
func compareDump(t *testing.T, vm *guest.VM, dir string, m *guestmem.Memory, set *guestmem.PageSet) {
	t.Helper()
	core := filepath.Join(dir, "core")
	qmp(t, vm, "dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + core})
	defer os.Remove(core)
	cr3 := coreCR3(t, core)
	if len(cr3) == 0 {
		t.Error("the core has no CR3")
	}
	again, r, err := guestmem.FreePages(t.Context(), m, guestmem.Options{CR3: cr3})
	if err != nil || again.Count() != set.Count() {
		t.Errorf("with CR3 %#x: %+v, %v", cr3, r, err)
	}
	tool, err := exec.LookPath("makedumpfile")
	if err != nil {
		t.Log("not compared with makedumpfile, which is not installed")
		return
	}
	moveHeaders(t, core)
	out, err := exec.CommandContext(t.Context(), tool, "-d", "16", "--message-level", "31", core, filepath.Join(dir, "small")).CombinedOutput()
	os.Remove(filepath.Join(dir, "small"))
	match := regexp.MustCompile(`Free pages +: 0x([0-9a-f]+)`).FindSubmatch(out)
	if err != nil || match == nil {
		t.Fatalf("makedumpfile: %v\n%s", err, out)
	}
	n, err := strconv.ParseUint(string(match[1]), 16, 64)
	if err != nil || n != set.Count() {
		t.Errorf("%d free pages, makedumpfile found %d (%v)\n%s", set.Count(), n, err, out)
	}
}

// moveHeaders moves the program headers of a core to where makedumpfile expects
// them, right after the ELF header: QEMU 7.2 has section headers there, which
// are given up, and writes a wrong size of the ELF header.
func moveHeaders(t *testing.T, core string) {
	t.Helper()
	f, err := os.OpenFile(core, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var h elf.Header64
	const size = 64
	if err := binary.Read(f, binary.LittleEndian, &h); err != nil {
		t.Fatal(err)
	}
	programs := make([]byte, int(h.Phentsize)*int(h.Phnum))
	if _, err := f.ReadAt(programs, int64(h.Phoff)); err != nil {
		t.Fatal(err)
	}
	h.Ehsize, h.Phoff, h.Shoff, h.Shnum, h.Shstrndx = size, size, 0, 0, 0
	header, err := binary.Append(nil, binary.LittleEndian, &h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(append(header, programs...), 0); err != nil {
		t.Fatal(err)
	}
}

func coreCR3(t *testing.T, path string) []uint64 {
	t.Helper()
	e, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var cr3 []uint64
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		cr3 = append(cr3, guestmem.QEMUCR3(notes)...)
	}
	return cr3
}
