package lsa

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"lsad/internal/blockdev"
	"lsad/lsa/format"
)

// countingReads counts the reads of a device and the bytes that they bring.
type countingReads struct {
	blockdev.Device
	reads, bytes int
}

func (c *countingReads) ReadAt(p []byte, off int64) error {
	c.reads++
	c.bytes += len(p)
	return c.Device.ReadAt(p, off)
}

// Live blocks of a segment come in the order that was asked for, the damaged ones marked, in few reads of bounded
// length that begin and end with a live block.
func TestReadLive(t *testing.T) {
	const segBytes, seg = 1 << 20, 1
	rng := rand.New(rand.NewPCG(1, 2))
	for _, share := range []float64{0.02, 0.3, 0.9, 1} {
		mem := blockdev.NewDurableMem("m", format.SegmentsOffset+2*segBytes)
		dev := &countingReads{Device: mem}
		d := &device{dev: dev, segBytes: segBytes, segs: make([]segment, 2)}
		var live []liveBlock
		var want [][]byte
		for sector := uint32(1); sector+format.BlockSectors <= d.segSectors(); sector += format.BlockSectors + rng.Uint32N(2) {
			if rng.Float64() >= share {
				continue
			}
			block := make([]byte, format.BlockSize)
			for i := range block {
				block[i] = byte(rng.Uint32())
			}
			if err := mem.WriteVec([][]byte{block}, d.offset(seg, sector)); err != nil {
				t.Fatal(err)
			}
			live = append(live, liveBlock{place: format.MakePlace(0, seg, sector), crc: format.Checksum(block)})
			want = append(want, block)
		}
		rng.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i]; want[i], want[j] = want[j], want[i] })
		damaged := rng.IntN(len(live))
		mem.Corrupt(d.offset(seg, live[damaged].place.Sector()), []byte{1})

		buf, bad := new(mover).readLive(d, seg, live)
		for i := range live {
			if bad[i] != (i == damaged) {
				t.Errorf("share %v: block %d of %d is bad: %v, damaged is %d", share, i, len(live), bad[i], damaged)
			}
			if i != damaged && !bytes.Equal(buf[i*format.BlockSize:][:format.BlockSize], want[i]) {
				t.Errorf("share %v: block %d is another one", share, i)
			}
		}
		if most := segBytes/(spanBytes-2*format.BlockSize) + 1; share >= 0.9 && dev.reads > most {
			t.Errorf("share %v: %d reads for %d blocks, want at most %d", share, dev.reads, len(live), most)
		}
		if most := len(live) * (gapBlocks + 2) * format.BlockSize; dev.bytes > most {
			t.Errorf("share %v: %d bytes read for %d blocks", share, dev.bytes, len(live))
		}
	}
}
