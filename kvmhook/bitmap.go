package kvmhook

// blockSize is the unit in which zeros are remembered, in bytes.
const blockSize = 4096

// bitmap has a bit for each block of the image.
type bitmap []uint64

func newBitmap(size int64) bitmap { return make(bitmap, (size+64*blockSize-1)/(64*blockSize)) }

// setRange marks the whole blocks in [off, off+n), and the image's last one if it ends at size.
func (b bitmap) setRange(off, n, size int64) {
	first, last := (off+blockSize-1)/blockSize, (off+n)/blockSize
	if off+n == size {
		last = (size + blockSize - 1) / blockSize
	}
	for i := first; i < last; {
		if i%64 == 0 && last-i >= 64 {
			b[i/64] = ^uint64(0)
			i += 64
			continue
		}
		b[i/64] |= 1 << (i % 64)
		i++
	}
}

// all says whether every block in [off, off+n) is marked. off is a multiple of the block size.
func (b bitmap) all(off, n int64) bool {
	for i, last := off/blockSize, (off+n+blockSize-1)/blockSize; i < last; i++ {
		if b[i/64]&(1<<(i%64)) == 0 {
			return false
		}
	}
	return true
}
