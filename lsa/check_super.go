package lsa

import (
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// superblocks checks both copies on every device, and that the devices agree
// on what array they are of. What an interrupted update leaves, a second copy
// older than the first, is in order.
func (c *checker) superblocks(devices []blockdev.Device) {
	var first *format.Superblock
	for _, d := range devices {
		s := c.superblockCopies(d)
		if s == nil {
			continue
		}
		if first == nil {
			first = s
		} else if s.Array == first.Array { // a foreign device is no damage
			c.compareSupers("device "+d.Name(), "those of the other devices", s, first)
		}
	}
}

func (c *checker) superblockCopies(d blockdev.Device) *format.Superblock {
	var good []*format.Superblock
	for i, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		where := fmt.Sprintf("device %s copy %d", d.Name(), i+1)
		buf := make([]byte, format.SuperblockSize)
		if err := d.ReadAt(buf, off); err != nil {
			c.add("superblock", where, "%v", err)
			continue
		}
		s, err := format.DecodeSuperblock(buf)
		if err != nil {
			c.add("superblock", where, "%v", err)
			continue
		}
		good = append(good, s)
	}
	switch len(good) {
	case 0:
		return nil
	case 2:
		where := "device " + d.Name() + " copy 2"
		c.compareSupers(where, "copy 1", good[1], good[0])
		if good[1].Sequence > good[0].Sequence {
			c.add("superblock", where, "is newer than copy 1, which is written first")
		}
	}
	return good[0]
}

// compareSupers checks what is the same in all superblocks of an array.
func (c *checker) compareSupers(where, others string, s, than *format.Superblock) {
	same := s.Array == than.Array && s.Secret == than.Secret && s.SegmentSize == than.SegmentSize && len(s.Devices) == len(than.Devices)
	for i := 0; same && i < len(s.Devices); i++ {
		same = s.Devices[i].ID == than.Devices[i].ID && s.Devices[i].Segments == than.Devices[i].Segments
	}
	if !same {
		c.add("superblock", where, "says another array, secret, segment size or device table than %s", others)
	}
}
