package nbd

import (
	"bytes"
	"net"
	"testing"

	"lsad/internal/nbdproto"
)

// wire is a connection on which a client finds bytes.
type wire struct {
	net.Conn
	bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error)  { return w.Buffer.Read(p) }
func (w *wire) Write(p []byte) (int, error) { return w.Buffer.Write(p) }

// TestLayOut lays out every combination of zeros and data, in units of the shortest hole and with an odd end, and
// has a client put it together again.
func TestLayOut(t *testing.T) {
	const units = 5
	for _, m := range modes {
		s := &session{structured: m == structured, extended: m == extended}
		for _, tail := range []int{0, 100, minHole - 1} {
			for set := range 1 << units {
				want := make([]byte, units*minHole+tail)
				holes := 0
				for i := range units {
					if set&(1<<i) != 0 {
						copy(want[i*minHole:], pattern(minHole, byte(i)))
					} else if i == 0 || set&(1<<(i-1)) != 0 {
						holes++
					}
				}
				x := req{cmd: nbdproto.CmdRead, off: 12345, n: uint64(len(want))}
				class, _ := payloadClass(len(want))
				j := &job{buf: getPayload(class)}
				j.req.parse(x.bytes(m), m == extended)
				copy(j.buf.b[s.dataHeaderSize():], want)

				w := &wire{}
				for _, seg := range s.layOut(j) {
					w.Write(seg)
				}
				c := &client{t: t, nc: w, mode: m}
				a := c.answer(x)
				if !bytes.Equal(a.data, want) || w.Len() != 0 {
					t.Fatalf("%v, units %05b and %d bytes: wrong data, or %d bytes too many", m, set, tail, w.Len())
				}
				if m == simple {
					holes = 0
				}
				if a.holes != holes {
					t.Fatalf("%v, units %05b and %d bytes: %d holes, want %d", m, set, tail, a.holes, holes)
				}
				putPayload(j.buf)
			}
		}
	}
}
