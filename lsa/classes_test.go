package lsa

import (
	"slices"
	"testing"

	"lsad/lsa/format"
)

// classBatch is a batch of one write of a block for each class given, of blocks one after the other unless
// they are named.
func classBatch(classes []uint8, blocks ...uint64) *batch {
	b := newBatch(originUser)
	b.classes = 0
	for i, class := range classes {
		block := uint64(i)
		if i < len(blocks) {
			block = blocks[i]
		}
		b.addWrite(1, block, make([]byte, format.BlockSize))
		b.changes[i].class, b.changes[i].want = class, class
		b.classes |= 1 << class
	}
	return b
}

func (b *batch) listClasses() (all []uint8) {
	for i := range b.changes {
		all = append(all, b.changes[i].class)
	}
	return all
}

// Only what is of the same block is put together; it was all that the batch had.
func TestJoinOverlapping(t *testing.T) {
	b := classBatch([]uint8{3, 0, 7, 5, 1}, 10, 20, 10, 30, 20)
	b.joinOverlapping()
	got := b.listClasses()
	if got[0] != got[2] || got[1] != got[4] || got[3] != 5 {
		t.Errorf("classes %v: want those of the 1st and 3rd, and of the 2nd and 5th, to be equal, and the 4th as it was", got)
	}
	if want := uint8(1<<got[0] | 1<<got[1] | 1<<5); b.classes != want {
		t.Errorf("classes of the batch %08b, want %08b", b.classes, want)
	}
}

// Classes that fit into their own segments stay there; one more may be opened for that which needs most; the
// rest goes to the nearest.
func TestShareNearest(t *testing.T) {
	r := newRig(t, 1, 64)
	d := r.a.devs()[0]
	r.a.append.mu.Lock()
	defer r.a.append.mu.Unlock()
	left := map[int]uint32{0: 400, 2: 4, 3: 400, 6: 4, 7: 400} // sectors
	for class, sectors := range left {
		d.streams[class] = stream{open: true, next: d.segSectors() - sectors}
	}
	defer func() { d.streams = [MaxClasses]stream{} }()
	prepared := d.prepared
	defer func() { d.prepared = prepared }()

	b := classBatch([]uint8{0, 2, 6, 6})
	d.prepared = nil
	if !r.a.share(b, [2]*device{d}, b.room()) {
		t.Fatal("there is room in open segments")
	}
	if got, want := b.listClasses(), []uint8{0, 3, 7, 7}; !slices.Equal(got, want) {
		t.Errorf("with no segment to open: classes %v, want %v", got, want)
	}
	b.unmix()
	if got, want := b.listClasses(), []uint8{0, 2, 6, 6}; !slices.Equal(got, want) {
		t.Errorf("afterwards: classes %v, want %v", got, want)
	}
	b.urgent = true // may take the last segment
	d.prepared = make([]uint32, 1+r.a.keptForRescue())
	if !r.a.share(b, [2]*device{d}, b.room()) {
		t.Fatal("there is room in open segments")
	}
	if got, want := b.listClasses(), []uint8{0, 3, 6, 6}; !slices.Equal(got, want) {
		t.Errorf("with one segment to open: classes %v, want %v", got, want)
	}
}
