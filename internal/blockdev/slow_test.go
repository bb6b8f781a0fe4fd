package blockdev

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// plainClock is the time of the runtime, which synctest replaces.
type plainClock struct{}

func (plainClock) Now() time.Time         { return time.Now() }
func (plainClock) SleepUntil(t time.Time) { time.Sleep(time.Until(t)) }

func TestSlowServiceTimes(t *testing.T) {
	const us = time.Microsecond
	timing := Timing{
		Channels: 2, StripeBytes: 4096,
		Read: 100 * us, Write: 30 * us, Sync: 500 * us,
		ReadBandwidth: 2 * 4096 * 10_000, // a channel moves a stripe in 100 us
	}
	read := func(n int) func(Device) error {
		return func(d Device) error { return d.ReadAt(make([]byte, n), 0) }
	}
	write := func(n int) func(Device) error {
		return func(d Device) error { return d.WriteVec([][]byte{make([]byte, n)}, 0) }
	}
	syncIt := func(d Device) error { return d.Sync() }
	type op struct {
		at   time.Duration
		do   func(Device) error
		ends time.Duration
	}
	tests := []struct {
		name string
		ops  []op
	}{
		{"one read", []op{{0, read(4096), 200 * us}}},
		{"a short read transfers less", []op{{0, read(1024), 125 * us}}},
		{"one write", []op{{0, write(4096), 30 * us}}},
		{"two reads at once", []op{{0, read(4096), 200 * us}, {1, read(4096), 200*us + 1}}},
		{"the third read queues", []op{{0, read(4096), 200 * us}, {1, read(4096), 200*us + 1}, {2, read(4096), 400 * us}}},
		{"a long read uses all channels", []op{{0, read(3 * 4096), 400 * us}}},
		{"a read behind a long write", []op{{0, write(20 * 4096), 300 * us}, {10 * us, read(4096), 500 * us}}},
		{"no wait later", []op{{0, write(4096), 30 * us}, {time.Second, write(4096), time.Second + 30*us}}},
		{"a sync waits for what came before", []op{{0, write(4096), 30 * us}, {us, syncIt, 530 * us}, {2 * us, write(4096), 32 * us}}},
		{"a sync of an idle disk", []op{{0, syncIt, 500 * us}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, err := NewSlow(NewDurableMem("m", 1<<20), timing, plainClock{})
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				var wg sync.WaitGroup
				for i, op := range test.ops {
					wg.Go(func() {
						time.Sleep(op.at)
						if err := op.do(d); err != nil {
							t.Error(err)
						}
						if got := time.Since(begin); got != op.ends {
							t.Errorf("operation %d ended at %v, should at %v", i, got, op.ends)
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

func TestSlowPassesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := NewSlow(NewMem("m", 1<<20), Timing{Channels: 1, StripeBytes: 1 << 16, Read: time.Microsecond}, plainClock{})
		if err != nil {
			t.Fatal(err)
		}
		checkDevice(t, d, true)
		if err := d.TryReadAt(make([]byte, 1), 0); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("TryReadAt: got %v", err)
		}
	})
}

func TestSlowRefusesNonsense(t *testing.T) {
	for _, timing := range []Timing{
		{},
		{Channels: 1},
		{Channels: 1, StripeBytes: 1, Read: -1},
		{Channels: 1, StripeBytes: 1, WriteBandwidth: -1},
	} {
		if _, err := NewSlow(NewMem("m", 1), timing, plainClock{}); err == nil {
			t.Errorf("%+v was accepted", timing)
		}
	}
}
