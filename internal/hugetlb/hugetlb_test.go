package hugetlb

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestReserve holds that reserved pages can be mapped, and that the setting is put back.
func TestReserve(t *testing.T) {
	const pages, size = 2, 2 << 20
	lock(t)
	before, err := read()
	if err != nil {
		t.Fatal(err)
	}
	done := t.Run("reserved", func(t *testing.T) {
		reserve(t, pages)
		mem, err := unix.Mmap(-1, 0, pages*size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if after, err := read(); done && (err != nil || after != before) {
		t.Errorf("%d huge pages before, %d after (%v)", before, after, err)
	}
}
