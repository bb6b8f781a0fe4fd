package lsa

import (
	"fmt"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// superblocks checks both copies on every device, and that the devices agree
// on what array they are of. What an interrupted update leaves is in order: one
// copy older than the other or, if the array was not closed, torn.
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
	var torn []Problem
	for i, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		where := fmt.Sprintf("device %s copy %d", d.Name(), i+1)
		buf := make([]byte, format.SuperblockSize)
		if err := d.ReadAt(buf, off); err != nil {
			c.add("superblock", where, "%v", err)
			continue
		}
		s, err := format.DecodeSuperblock(buf)
		if err != nil {
			torn = append(torn, Problem{Where: where, What: err.Error()})
			continue
		}
		good = append(good, s)
	}
	if len(good) == 0 || good[0].Clean {
		for _, p := range torn {
			c.add("superblock", p.Where, "%s", p.What)
		}
	}
	if len(good) == 0 {
		return nil
	}
	if len(good) == 2 {
		c.compareSupers("device "+d.Name()+" copy 2", "copy 1", good[1], good[0])
		if good[1].Sequence > good[0].Sequence {
			return good[1]
		}
	}
	return good[0]
}

// compareSupers checks what is the same in all superblocks of an array.
func (c *checker) compareSupers(where, others string, s, than *format.Superblock) {
	same := s.Array == than.Array && s.Secret == than.Secret && s.SegmentSize == than.SegmentSize
	// A device may have been added since one of them was written.
	for i := 0; same && i < min(len(s.Devices), len(than.Devices)); i++ {
		same = s.Devices[i].ID == than.Devices[i].ID && s.Devices[i].Segments == than.Devices[i].Segments
	}
	if !same {
		c.add("superblock", where, "says another array, secret, segment size or device table than %s", others)
	}
}
