package nbd

// outBatch is a run of replies to be written together.
type outBatch struct {
	stage *stage // for short replies; nil while it has none
	n     int    // bytes in it
	cut   int    // of those, how many are in segs already
	segs  [][]byte
	jobs  []*job // whose replies these are; they end when the batch is written
}

func (b *outBatch) empty() bool { return b.n == 0 && len(b.segs) == 0 }

// fits says whether a reply can be added. To an empty batch it always can.
func (b *outBatch) fits(reply [][]byte) bool {
	short := 0
	for _, p := range reply {
		if len(p) < byReference {
			short += len(p)
		}
	}
	return b.empty() || b.n+short <= stageSize && len(b.segs)+2*len(reply) <= maxSegments
}

// room returns the next n bytes of the stage, which grow takes into use. The caller checked that they fit.
func (b *outBatch) room(n int) []byte {
	if b.stage == nil {
		b.stage = getStage()
	}
	return b.stage.b[b.n : b.n+n]
}

func (b *outBatch) grow(n int) { b.n += n }

// add appends a reply. Long ones are kept by reference until they are written.
func (b *outBatch) add(reply []byte) {
	if len(reply) < byReference {
		copy(b.room(len(reply)), reply)
		b.grow(len(reply))
		return
	}
	b.seal()
	b.segs = append(b.segs, reply)
}

// copyOf appends the replies of o, which are all in its stage.
func (b *outBatch) copyOf(o *outBatch) {
	copy(b.room(o.n), o.stage.b[:o.n])
	b.grow(o.n)
}

// seal makes a segment of the stage's bytes that are in none.
func (b *outBatch) seal() {
	if b.n > b.cut {
		b.segs = append(b.segs, b.stage.b[b.cut:b.n])
		b.cut = b.n
	}
}

func (b *outBatch) reset() {
	if b.stage != nil {
		putStage(b.stage)
		b.stage = nil
	}
	clear(b.segs)
	clear(b.jobs)
	b.n, b.cut, b.segs, b.jobs = 0, 0, b.segs[:0], b.jobs[:0]
}
