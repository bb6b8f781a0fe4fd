package qemu

import (
	"bytes"
	"net"
	"os"
	"testing"
	"time"
)

// fuzzSink takes pages of a VM of any size without keeping them.
type fuzzSink struct {
	t    *testing.T
	size int64
}

func (s *fuzzSink) begin(state *State) error { s.size = state.Size(); return nil }

func (s *fuzzSink) page(off int64, p []byte) error { return s.zero(off) }

func (s *fuzzSink) zero(off int64) error {
	if off < 0 || off%PageSize != 0 || off > s.size-PageSize {
		s.t.Errorf("a page at %d of %d bytes", off, s.size)
	}
	return nil
}

func (s *fuzzSink) end() error { return nil }

// FuzzParse holds that no stream makes the parser panic or believe what cannot be, and that a state that is
// accepted survives being stored.
func FuzzParse(f *testing.F) {
	head, err := os.ReadFile("testdata/qemu-7.2-head.bin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	s := testState()
	s.Blocks = []Block{{Name: "a", Size: PageSize}}
	f.Add(testStream(s, testRAM(s, 1)))
	f.Add(s.Marshal())
	f.Fuzz(func(t *testing.T, stream []byte) {
		p := &parser{r: newReader(bytes.NewReader(stream), 1<<12), pages: &fuzzSink{t: t}}
		if p.parse() != nil {
			return
		}
		again, err := UnmarshalState(bytes.NewReader(p.state.Marshal()))
		if err != nil {
			t.Fatalf("what was accepted cannot be stored: %v", err)
		}
		p.state.IgnoresShared = false
		for i := range p.state.Blocks {
			p.state.Blocks[i].Addr = 0 // not kept
		}
		if err := sameState(again, &p.state); err != nil {
			t.Error(err)
		}
	})
}

// FuzzReturnPath holds that no return path asks for pages that are not there.
func FuzzReturnPath(f *testing.F) {
	s := testState()
	f.Add([]byte("\x00\x03\x00\x13\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x10\x00\x06pc.ram\x00\x04\x00\x0c\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x10\x00"))
	f.Add([]byte("\x00\x05\x00\x08\x07pc.bios\x00\x00\x00\x00\x00\x00\x00\x08\x7f\x00\x00\x00\x00\x00\x00\x00\x01\x23\x45\x67\x89\xab\xcd\xef"))
	f.Add([]byte("\x00\x02\x00\x04\x00\x00\x00\x01\x00\x01\x00\x04\x00\x00\x00\x00\x00\x06\x00\x04\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := rpParser{r: newReader(bytes.NewReader(in), 1<<10), state: s, pageSize: func(Block) int64 { return PageSize }}
		for {
			m, want, err := p.next()
			if err != nil {
				return
			}
			if want.count < 0 || want.first < 0 || want.first+want.count > s.Pages() {
				t.Fatalf("pages %+v of %d", want, s.Pages())
			}
			if m.kind == rpRecvBitmap {
				NewPageSet(s.Pages()).copyBlock(m.block, m.bitmap)
			}
		}
	})
}

// TestRecorded holds that the parser takes the beginning of a stream of QEMU 7.2 itself.
func TestRecorded(t *testing.T) {
	head, err := os.ReadFile("testdata/qemu-7.2-head.bin")
	if err != nil {
		t.Fatal(err)
	}
	p := &parser{r: newReader(bytes.NewReader(head), 1<<12), pages: &fuzzSink{t: t}}
	if err := p.parse(); err == nil || p.state.Machine != "pc-i440fx-7.2" || len(p.state.Blocks) != 6 || p.state.Blocks[0].Name != "pc.ram" {
		t.Errorf("%+v, %v", p.state, err)
	}
}

// loopNet is a connection whose reads repeat one request for ever.
type loopNet struct {
	net.Conn
	request []byte
	at      int
}

func (l *loopNet) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], l.request[l.at:])
		n += c
		l.at = (l.at + c) % len(l.request)
	}
	return n, nil
}

// BenchmarkRequest is the way of a request from the return path through the queue into a batch. It does not
// allocate.
func BenchmarkRequest(b *testing.B) {
	s := testState()
	sess, err := newSession(RestoreOptions{State: s, RAM: testRAM(s, 1)})
	if err != nil {
		b.Fatal(err)
	}
	request := []byte("\x00\x03\x00\x13\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x10\x00\x06pc.ram")
	p := rpParser{r: newReader(&loopNet{request: request}, 64<<10), state: s, pageSize: sess.pageSize}
	b.ReportAllocs()
	for b.Loop() {
		_, want, err := p.next()
		if err != nil {
			b.Fatal(err)
		}
		sess.demand.push(want)
		sess.sent.Remove(want.first)
		sess.batch.begin()
		if err := sess.addDemanded(); err != nil || sess.batch.pages() != 1 {
			b.Fatal(err, sess.batch.pages())
		}
		sess.batch.end()
	}
}

// BenchmarkBackground is the making of batches, without the socket.
func BenchmarkBackground(b *testing.B) {
	s := testState()
	sess, err := newSession(RestoreOptions{State: s, RAM: testRAM(s, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(batchData * PageSize)
	sess.pace.sent(time.Now(), 0)
	for b.Loop() {
		for page := range s.Pages() {
			sess.sent.Remove(page)
		}
		sess.cursor = 0
		sess.batch.begin()
		if err := sess.addBackground(); err != nil {
			b.Fatal(err)
		}
		sess.batch.end()
	}
}
