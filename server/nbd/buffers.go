package nbd

import (
	"math/bits"
	"sync"
)

// stageSize is the size of a receive or reply buffer, in bytes. It takes in a queue depth of 32 with
// writes of 4 KiB at once, about as much as a socket holds by default.
const stageSize = 256 << 10

// stage is a staging buffer. A connection holds one only while there is something in it.
type stage struct {
	b [stageSize]byte
}

var stages = sync.Pool{New: func() any { return new(stage) }}

func getStage() *stage  { return stages.Get().(*stage) }
func putStage(s *stage) { stages.Put(s) }

// payload is a pooled buffer for the data of one request.
type payload struct {
	b     []byte // as long as its class
	class int
}

const (
	minPayloadShift = 12 // a block
	maxPayloadShift = 25 // MaxPayload
	// replySlack is what a payload buffer holds beyond a power of two: the headers of a read's reply.
	replySlack = 256
)

// payloads has a pool for each power of two.
var payloads [maxPayloadShift - minPayloadShift + 1]sync.Pool

// payloadClass is the smallest class whose buffers hold n bytes of data and the headers of a reply, and
// the size of those buffers. n is at most MaxPayload.
func payloadClass(n int) (class int, size int64) {
	shift := max(bits.Len(uint(max(n, 1)-1)), minPayloadShift)
	return shift - minPayloadShift, 1<<shift + replySlack
}

func getPayload(class int) *payload {
	if p, ok := payloads[class].Get().(*payload); ok {
		return p
	}
	return &payload{b: make([]byte, 1<<(class+minPayloadShift)+replySlack), class: class}
}

func putPayload(p *payload) { payloads[p.class].Put(p) }
