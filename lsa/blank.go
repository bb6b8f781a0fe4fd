package lsa

import (
	"bytes"
	"errors"
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// signature is what tells that a device holds something.
type signature struct {
	what  string
	off   int
	magic string
}

// signatures of what people have on disks, from the on-disk formats of each. Those
// of file systems come first: a boot sector may stand before them.
var signatures = []signature{
	{"an ext2, ext3 or ext4 file system", 1024 + 56, "\x53\xef"},
	{"an XFS file system", 0, "XFSB"},
	{"a Btrfs file system", 64<<10 + 64, "_BHRfS_M"},
	{"an F2FS file system", 1024, "\x10\x20\xf5\xf2"},
	{"an NTFS file system", 3, "NTFS    "},
	{"swap space", 4096 - 10, "SWAPSPACE2"},
	{"a LUKS volume", 0, "LUKS\xba\xbe"},
	{"an LVM physical volume", 512, "LABELONE"},
	{"an LVM physical volume", 0, "LABELONE"},
	{"a member of a Linux RAID", 0, "\xfc\x4e\x2b\xa9"},
	{"a member of a Linux RAID", 4096, "\xfc\x4e\x2b\xa9"},
	{"a qcow2 image", 0, "QFI\xfb"},
	{"a bcache device", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"a partition table", 512, "EFI PART"},
	{"a partition table", 4096, "EFI PART"},
	{"a partition table or a boot sector", 510, "\x55\xaa"},
}

// blank refuses a device that carries an array, even a damaged one, or anything
// else that somebody may miss: known by its signature, or because the device does not
// begin with zeros, as new files and wiped disks do, and devices that were removed.
func blank(d blockdev.Device) error {
	s, err := readSuperblock(d)
	if err == nil {
		return fmt.Errorf("device %s belongs to an array (%v): %w; open that array, or make the device blank first", d.Name(), s.Array, ErrExists)
	}
	if !errors.Is(err, ErrNotArray) {
		return err
	}
	head := make([]byte, min(format.SegmentsOffset, d.Size()&^(format.SectorSize-1)))
	if err := d.ReadAt(head, 0); err != nil {
		return fmt.Errorf("device %s: %w", d.Name(), err)
	}
	for _, sig := range signatures {
		if end := sig.off + len(sig.magic); end <= len(head) && bytes.Equal(head[sig.off:end], []byte(sig.magic)) {
			return fmt.Errorf("device %s holds %s: %w; if nobody needs it, wipe it first (wipefs --all %s)", d.Name(), sig.what, ErrExists, d.Name())
		}
	}
	if at := bytes.IndexFunc(head, func(r rune) bool { return r != 0 }); at >= 0 {
		return fmt.Errorf("device %s holds data of an unknown kind, at byte %d: %w; if nobody needs it, make its first MiB zeros first (dd if=/dev/zero of=%s bs=1M count=1 conv=notrunc)",
			d.Name(), at, ErrExists, d.Name())
	}
	return nil
}
