package format

import "fmt"

// MaxDevices is how many devices an array can have.
const MaxDevices = 64

// Place says where a block lies: device, segment, and the sector within the
// segment at which it begins. Zero is no place: the first sector of a segment
// always belongs to a record's header.
type Place uint64

// MakePlace packs a place. dev is below MaxDevices, sector below 1<<24.
func MakePlace(dev uint8, seg, sector uint32) Place {
	return Place(dev)<<56 | Place(seg)<<24 | Place(sector&0xffffff)
}

// Device is the slot of the device in the array.
func (p Place) Device() uint8 { return uint8(p >> 56) }

// Segment is the number of the segment on its device.
func (p Place) Segment() uint32 { return uint32(p >> 24) }

// Sector counts from the start of the segment.
func (p Place) Sector() uint32 { return uint32(p) & 0xffffff }

// After is the place of the n-th block behind p in the same record.
func (p Place) After(n int) Place { return p + Place(n*BlockSectors) }

func (p Place) String() string {
	if p == 0 {
		return "nowhere"
	}
	return fmt.Sprintf("device %d segment %d sector %d", p.Device(), p.Segment(), p.Sector())
}
