package guest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/kvmhook/guestmem"
	"lsad/server/admin"
	"lsad/tools/guest"
)

// busyScript has a guest use and free 600 MiB, and keep some data.
const busyScript = `
	mount -t tmpfs -o size=800m none /mnt
	for i in 1 2 3 4 5 6 7 8; do cat /random; done | head -c 60m >/mnt/seed
	for i in 1 2 3 4 5 6 7 8 9; do cp /mnt/seed /mnt/$i; done
	head -c 32m /mnt/3 > /tmp/kept
	rm /mnt/*`

// TestImageImport imports the memory of a stopped guest of 1 GiB that has used
// and freed 600 MiB, and holds that the image has every page that is neither
// free nor zero, and takes hardly more than those.
func TestImageImport(t *testing.T) {
	ram := filepath.Join(ramDir(t), "ram")
	vm := guest.Start(t, guest.Options{MemoryMiB: 1024, MemoryFile: ram, Files: map[string]string{"/random": randomFile(t)}})
	vm.MustRun(t, busyScript)
	server := startServer(t, "lsad")
	client := admin.NewClient("unix", filepath.Join(server.dir, config.AdminSocket), "")
	request := admin.ImportImage{Name: "vm", File: ram, QMP: vm.QMPSocket()}
	if _, err := client.ImportImage(t.Context(), request, func(admin.JobProgress) {}); err == nil || !strings.Contains(err.Error(), "running") {
		t.Fatalf("a running VM was not refused for that it runs: %v", err)
	}
	qmp(t, vm, "stop", nil)
	image, err := client.ImportImage(t.Context(), request, func(admin.JobProgress) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB stored; pages %+v; %s; %+v", image.StoredBytes>>20, image.Pages, image.Why, image.Steps)

	memory := mapRAM(t, ram, 1<<40)
	free, report, err := guestmem.FreePages(t.Context(), memory, guestmem.Options{})
	if err != nil || free == nil {
		t.Fatalf("%+v, %v", report, err)
	}
	got := exportRAM(t, server, "vm", int64(memory.Pages()*guestmem.PageSize))
	zeros := make([]byte, guestmem.PageSize)
	var inUse int64
	for page := range memory.Pages() {
		want := memory.Page(page)
		switch {
		case free.Has(page):
			want = zeros
		case !bytes.Equal(want, zeros):
			inUse++
		}
		if !bytes.Equal(got[page*guestmem.PageSize:][:guestmem.PageSize], want) {
			t.Fatalf("page %d is wrong (free: %v)", page, free.Has(page))
		}
	}
	if !image.FreeElided || image.Pages.InUse != inUse || image.Pages.Free != int64(free.Count()) {
		t.Errorf("%+v, want %d in use and %d free", image, inUse, free.Count())
	}
	if limit := inUse * guestmem.PageSize * 105 / 100; image.StoredBytes > limit {
		t.Errorf("the image takes %d bytes, %.3f of its pages in use", image.StoredBytes, float64(image.StoredBytes)/float64(inUse*guestmem.PageSize))
	}
	if data := allocated(t, server, "vm"); data != inUse*guestmem.PageSize {
		t.Errorf("base:allocation says that %d bytes are data, %d are in use", data, inUse*guestmem.PageSize)
	}
}

// exportRAM copies an export of the server with nbdcopy and maps the copy.
func exportRAM(t *testing.T, s *nbdServer, name string, size int64) []byte {
	t.Helper()
	file := filepath.Join(ramDir(t), "export")
	if out, err := exec.CommandContext(t.Context(), "nbdcopy", s.exportURI(name), file).CombinedOutput(); err != nil {
		t.Fatalf("nbdcopy: %v: %s", err, out)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != size {
		t.Fatalf("the copy has %d bytes, not %d (%v)", info.Size(), size, err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(data) })
	return data
}

// allocated adds up what base:allocation says is neither a hole nor zeros.
func allocated(t *testing.T, s *nbdServer, name string) int64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nbdinfo", "--json", "--map", s.exportURI(name)).Output()
	if err != nil {
		t.Fatalf("nbdinfo: %v", err)
	}
	var extents []struct {
		Length int64 `json:"length"`
		Type   int   `json:"type"`
	}
	if err := json.Unmarshal(out, &extents); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, e := range extents {
		if e.Type == 0 {
			sum += e.Length
		}
	}
	return sum
}

// exportURI is how NBD clients on the host find an export.
func (s *nbdServer) exportURI(name string) string {
	return "nbd://127.0.0.1:" + strconv.Itoa(s.port) + "/" + name
}
