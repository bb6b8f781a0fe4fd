package qemu

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
)

// feed sends a stream to Ingest and closes the connection, unless it is kept.
func feed(t *testing.T, stream []byte, keep bool) (*Ingested, *memFile, error) {
	t.Helper()
	a, b := pair(t)
	go func() {
		a.Write(stream)
		if !keep {
			a.(*net.UnixConn).CloseWrite()
		}
	}()
	f := &memFile{}
	in, err := Ingest(t.Context(), b, f, IngestOptions{})
	return in, f, err
}

func TestIngest(t *testing.T) {
	s := testState()
	ram := testRAM(s, 1)
	in, got, err := feed(t, testStream(s, ram), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameState(in.State, s); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got.data, ram.data) {
		t.Error("the RAM differs")
	}
	if in.Zero != 103 || in.Data != 204 || in.Absent != 0 || in.Again != 0 {
		t.Errorf("%+v", in)
	}
	// What an image keeps of it is a stream too.
	again, err := UnmarshalState(bytes.NewReader(s.Marshal()))
	if err != nil {
		t.Fatal(err)
	}
	if err := sameState(again, s); err != nil {
		t.Error(err)
	}
}

// TestIngestAgain holds that a page counts as it came last, and that what never came is zeros.
func TestIngestAgain(t *testing.T) {
	s := testState()
	w := &streamWriter{ram: 9}
	w.head(s)
	w.start(s)
	w.endPart()
	ones, twos := bytes.Repeat([]byte{1}, PageSize), bytes.Repeat([]byte{2}, PageSize)
	b := s.Blocks[0]
	w.part(typeSectionPart)
	w.page(b, 0, ones)
	w.page(b, PageSize, ones)
	w.page(b, 2*PageSize, ones)
	w.zero(b, 3*PageSize)
	w.endPart()
	w.part(typeSectionEnd)
	w.zero(b, PageSize)         // data, then zeros
	w.page(b, 3*PageSize, twos) // zeros, then data
	w.page(b, 0, twos)          // data, then other data
	w.u64(2*PageSize | ramPage | ramContinue)
	w.p = append(w.p, twos...)
	w.endPart()
	w.tail(s)
	in, got, err := feed(t, w.p, false)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, s.Size())
	for _, page := range []int{0, 2, 3} {
		copy(want[page*PageSize:], twos)
	}
	if !bytes.Equal(got.data, want) {
		t.Error("the RAM differs")
	}
	if in.Data != 3 || in.Zero != 1 || in.Again != 4 || in.Absent != s.Pages()-4 {
		t.Errorf("%+v", in)
	}
}

// TestIngestRefuses holds that every stream that is wrong, or not supported, is named as such.
func TestIngestRefuses(t *testing.T) {
	s := testState()
	ram := testRAM(s, 1)
	b := s.Blocks[0]
	record := func(flags uint64) func(w *streamWriter) {
		return func(w *streamWriter) {
			w.head(s)
			w.start(s)
			w.u64(flags)
			w.name(b.Name)
		}
	}
	whole := testStream(s, ram)
	tests := []struct {
		name  string
		write func(w *streamWriter)
		is    error
		text  string
	}{
		{"nothing", func(w *streamWriter) {}, ErrMalformed, "too early"},
		{"not QEMU", func(w *streamWriter) { w.p = []byte("GET / HTTP/1.1\r\n") }, ErrMalformed, "mark"},
		{"version", func(w *streamWriter) { w.u32(streamMagic); w.u32(2) }, ErrUnsupported, "version 2"},
		{"no configuration", func(w *streamWriter) { w.u32(streamMagic); w.u32(3); w.u8(1) }, ErrUnsupported, "configuration"},
		{"long name", func(w *streamWriter) { w.u32(streamMagic); w.u32(3); w.u8(7); w.u32(1 << 31) }, ErrMalformed, "machine"},
		{"unknown configuration", func(w *streamWriter) { w.head(s); w.u8(5); w.name("configuration/x"); w.u32(1) }, ErrUnsupported, "configuration/x"},
		{"capability", func(w *streamWriter) {
			w.head(s)
			w.u8(typeSubsection)
			w.name(capabilitiesSection)
			w.u32(1)
			w.u32(1)
			w.name("x-colo")
		}, ErrUnsupported, "x-colo"},
		{"x-ignore-shared", func(w *streamWriter) {
			w.head(s)
			w.u8(typeSubsection)
			w.name(capabilitiesSection)
			w.u32(1)
			w.u32(1)
			w.name(ignoreShared)
			i := *s
			i.IgnoresShared = true
			w.start(&i)
		}, ErrUnsupported, "x-ignore-shared"},
		{"block migration", func(w *streamWriter) { w.head(s); w.startOf("block", 1) }, ErrUnsupported, "block migration"},
		{"dirty bitmaps", func(w *streamWriter) { w.head(s); w.startOf("dirty-bitmap", 1) }, ErrUnsupported, "dirty-bitmap"},
		{"RAM version", func(w *streamWriter) { w.head(s); w.startOf("ram", 3) }, ErrUnsupported, "version 3"},
		{"device first", func(w *streamWriter) { w.head(s); w.u8(4); w.u32(1); w.name("timer") }, ErrUnsupported, `"timer"`},
		{"part of nothing", func(w *streamWriter) { w.head(s); w.part(2) }, ErrMalformed, "not begun"},
		{"odd type", func(w *streamWriter) { w.head(s); w.u8(0x33) }, ErrMalformed, "0x33"},
		{"second ram", func(w *streamWriter) { w.head(s); w.start(s); w.endPart(); w.startOf("ram", 4) }, ErrMalformed, "second"},
		{"too much RAM", func(w *streamWriter) { w.head(s); w.startOf("ram", 4); w.u64(1<<60 | ramMemSize) }, ErrMalformed, "bytes of RAM"},
		{"no RAM", func(w *streamWriter) { w.head(s); w.startOf("ram", 4); w.u64(ramMemSize) }, ErrMalformed, "no RAM"},
		{"block beyond the total", func(w *streamWriter) {
			w.head(s)
			w.startOf("ram", 4)
			w.u64(PageSize | ramMemSize)
			w.name("a")
			w.u64(2 * PageSize)
		}, ErrMalformed, "RAM block"},
		{"two blocks of a name", func(w *streamWriter) {
			w.head(s)
			w.startOf("ram", 4)
			w.u64(2*PageSize | ramMemSize)
			for range 2 {
				w.name("a")
				w.u64(PageSize)
			}
		}, ErrMalformed, "two of that name"},
		{"too many blocks", func(w *streamWriter) {
			w.head(s)
			w.startOf("ram", 4)
			w.u64(200*PageSize | ramMemSize)
			for i := range 200 {
				w.name("b" + string(rune('0'+i)))
				w.u64(PageSize)
			}
		}, ErrMalformed, "RAM blocks"},
		{"xbzrle", record(ramXBZRLE), ErrUnsupported, "xbzrle"},
		{"compression", record(ramCompress), ErrUnsupported, "compress"},
		{"multifd of later QEMUs", record(ramFlush), ErrUnsupported, "multifd"},
		{"RDMA", record(ramHook), ErrUnsupported, "RDMA"},
		{"odd flags", record(ramPage | ramZero), ErrMalformed, "flags"},
		{"beyond the block", record(uint64(b.Size) | ramPage), ErrMalformed, "pc.ram"},
		{"far beyond the block", record(1<<63 | ramPage), ErrMalformed, "pc.ram"},
		{"unknown block", func(w *streamWriter) { w.head(s); w.start(s); w.u64(ramPage); w.name("x") }, ErrMalformed, "not announced"},
		{"continue nothing", func(w *streamWriter) { w.head(s); w.start(s); w.u64(ramPage | ramContinue) }, ErrMalformed, "there was none"},
		{"filled page", func(w *streamWriter) { w.head(s); w.start(s); w.u64(ramZero); w.name(b.Name); w.u8(5) }, ErrMalformed, "filled"},
		{"no footer", func(w *streamWriter) { w.head(s); w.start(s); w.u64(ramEOS); w.u8(0); w.u32(2) }, ErrMalformed, "footer"},
		{"post-copy", func(w *streamWriter) { w.head(s); w.start(s); w.endPart(); w.command(cmdListen) }, ErrUnsupported, "post-copy"},
		{"huge pages", func(w *streamWriter) {
			w.head(s)
			w.command(cmdAdvise, 0, 0, 0, 0, 0, 0x20, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0)
		}, ErrUnsupported, "postcopy-ram"},
		{"odd command", func(w *streamWriter) { w.head(s); w.command(11, 1, 2) }, ErrUnsupported, "command 11"},
		{"multifd", func(w *streamWriter) {
			w.head(s)
			w.start(s)
			w.zero(b, 0)
			w.endPart()
			w.part(typeSectionEnd)
			w.endPart()
			w.tail(s)
		}, ErrUnsupported, "multifd"},
		{"cut in the pages", func(w *streamWriter) { w.p = append(w.p, whole[:len(whole)/2]...) }, ErrMalformed, "too early"},
		{"cut in the device state", func(w *streamWriter) { w.p = append(w.p, whole[:len(whole)-1]...) }, ErrMalformed, "no end"},
		{"no description", func(w *streamWriter) { w.p = append(w.p, whole[:len(whole)-len(s.Description)-5]...) }, ErrMalformed, "suppress-vmdesc"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &streamWriter{ram: 2}
			test.write(w)
			_, _, err := feed(t, w.p, false)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.is, test.text)
			}
		})
	}
}

// TestIngestReturnPath holds that a source that wants answers gets them, and need not close to be done.
func TestIngestReturnPath(t *testing.T) {
	s := testState()
	ram := testRAM(s, 2)
	w := &streamWriter{ram: 2}
	w.head(s)
	w.command(cmdOpenReturnPath)
	w.command(cmdPing, 0, 0, 0, 42)
	w.command(cmdAdvise, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0)
	head := len(w.p)
	w.p = append(w.p, testStream(s, ram)[len(s.appendHeader(nil)):]...)
	_ = head
	a, b := pair(t)
	go a.Write(w.p)
	if _, err := Ingest(t.Context(), b, &memFile{}, IngestOptions{}); err != nil {
		t.Fatal(err)
	}
	p := rpParser{r: newReader(a, 1<<10), state: s, pageSize: func(Block) int64 { return PageSize }}
	for _, want := range []message{{kind: rpPong, value: 42}, {kind: rpShut}} {
		got, _, err := p.next()
		if err != nil || got.kind != want.kind || got.value != want.value {
			t.Errorf("answer %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestIngestFails(t *testing.T) {
	s := testState()
	stream := testStream(s, testRAM(s, 3))
	t.Run("no room", func(t *testing.T) {
		a, b := pair(t)
		go a.Write(stream)
		if _, err := Ingest(t.Context(), b, &memFile{full: true}, IngestOptions{}); !errors.Is(err, errFull) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		_, b := pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Ingest(ctx, b, &memFile{}, IngestOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestTail holds that the end of a stream is found however it arrives, and not before.
func TestTail(t *testing.T) {
	s := testState()
	w := &streamWriter{}
	// What looks like an end, in the middle.
	s.Device = append(s.Device, "\x00\x06\x00\x00\x00\x02{}\x00\x06\x00\x00\x00\x40{"...)
	w.tail(s)
	for _, step := range []int{1, 3, len(w.p)} {
		var got tail
		done, err := false, error(nil)
		for at := 0; at < len(w.p) && err == nil; at += step {
			if done && at < len(w.p)-len(s.Description) {
				done = false // an end that was none, since more came; QEMU writes its own in one go
			}
			done, err = got.add(w.p[at:min(at+step, len(w.p))])
		}
		if !done || err != nil || !bytes.Equal(got.device, s.Device) || !bytes.Equal(got.description, s.Description) {
			t.Errorf("in steps of %d: %v, %v, %q", step, done, err, got.device)
		}
	}
	var bad tail
	if _, err := bad.add(bytes.Repeat([]byte("\x00\x06\x00\x10\x00\x00{"), maxCandidates+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many ends: %v", err)
	}
}
