package qemu

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// TestOrder holds that the background sends the working set first, in its order, and then the rest.
func TestOrder(t *testing.T) {
	s := testState()
	ram := testRAM(s, 12)
	d := newFakeDest(t, s)
	d.wants = []pageRange{{250, 1}}
	p, err := restoreTo(t, d, ram, func(o *RestoreOptions) {
		// Of the last chunk only a part exists; one is beyond the RAM.
		o.Order = Order{ChunkBytes: 4 * PageSize, Chunks: []int64{62, 3, 76, 4, 1 << 40}}
	})
	if err != nil || !bytes.Equal(d.ram, ram.data) || p.SentPages != s.Pages() {
		t.Fatalf("%+v, %v", p, err)
	}
	got := slices.DeleteFunc(d.came(), func(page int64) bool { return page == 250 }) // it was asked for at any time
	want := []int64{248, 249, 251, 12, 13, 14, 15, 304, 305, 306, 16, 17, 18, 19}
	if !slices.Equal(got[:len(want)], want) {
		t.Errorf("pages %v instead of %v", got[:len(want)], want)
	}
	for _, bad := range []int64{-PageSize, 0, 1000, 3 * PageSize} {
		if _, err := restoreTo(t, newFakeDest(t, s), ram, func(o *RestoreOptions) { o.Order = Order{bad, []int64{1}} }); err == nil {
			t.Errorf("an order of chunks of %d bytes was taken", bad)
		}
	}
}

// TestRecord holds that what is asked for is recorded in its order, that nothing else is sent meanwhile, and that the
// rest follows.
func TestRecord(t *testing.T) {
	s := testState()
	ram := testRAM(s, 13)
	d := newFakeDest(t, s)
	d.asksFirst = true // before the time begins, however short that is
	d.wants = []pageRange{{250, 1}, {301, 1}, {10, 1}, {241, 1}, {13, 1}}
	var recorded []Order
	_, err := restoreTo(t, d, ram, func(o *RestoreOptions) {
		o.Record = time.Millisecond
		o.Recorded = func(order Order) { recorded = append(recorded, order) }
	})
	if err != nil || !bytes.Equal(d.ram, ram.data) {
		t.Fatal(err)
	}
	if got := d.came()[:5]; !slices.Equal(got, []int64{250, 301, 10, 241, 13}) {
		t.Errorf("while it recorded, or after, the pages %v were sent first", got)
	}
	if len(recorded) != 1 || recorded[0].ChunkBytes != recordChunk || !slices.Equal(recorded[0].Chunks, []int64{15, 18, 0}) {
		t.Errorf("recorded %+v", recorded)
	}
}

// TestRecordInterrupted holds that an end before its time keeps what was recorded until then.
func TestRecordInterrupted(t *testing.T) {
	s := testState()
	d := newFakeDest(t, s)
	d.wants = []pageRange{{250, 1}}
	ctx, cancel := context.WithCancel(t.Context())
	var recorded []Order
	o := RestoreOptions{State: s, RAM: testRAM(s, 14), Dial: d.dial, Record: time.Hour, Recorded: func(order Order) { recorded = append(recorded, order) }}
	go func() {
		for len(d.came()) < 1 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := Restore(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(recorded) != 1 || !slices.Equal(recorded[0].Chunks, []int64{15}) {
		t.Errorf("recorded %+v", recorded)
	}
}
