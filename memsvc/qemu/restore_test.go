package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func restoreTo(t *testing.T, d *fakeDest, ram io.ReaderAt, change func(*RestoreOptions)) (Progress, error) {
	t.Helper()
	o := RestoreOptions{State: d.state, RAM: ram, Dial: d.dial}
	if change != nil {
		change(&o)
	}
	return Restore(t.Context(), o)
}

func TestRestore(t *testing.T) {
	s := testState()
	ram := testRAM(s, 4)
	d := newFakeDest(t, s)
	d.wants = []pageRange{{250, 1}, {301, 1}, {10, 1}}
	var phases []Phase
	p, err := restoreTo(t, d, ram, func(o *RestoreOptions) {
		o.Progress = func(p Progress) {
			if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
				phases = append(phases, p.Phase)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.ram, ram.data) {
		t.Error("the RAM differs")
	}
	if want := []Phase{Connecting, Preparing, Running, Complete}; !slices.Equal(phases, want) {
		t.Errorf("phases %v", phases)
	}
	if p.Owner != Destination || p.DataPages != 204 || p.ZeroPages != 103 || p.SentPages != 307 || p.Demanded != 3 || p.ToRun <= 0 {
		t.Errorf("%+v", p)
	}
}

// counting counts reads of RAM, and fails them from some offset on.
type counting struct {
	io.ReaderAt
	bytes  int
	failAt int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > c.failAt {
		return 0, io.ErrClosedPipe
	}
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// TestZeroPagesAreNotRead holds that what is known to be zero is sent as such, unread.
func TestZeroPagesAreNotRead(t *testing.T) {
	s := testState()
	ram := testRAM(s, 5)
	zero := NewPageSet(s.Pages())
	for page := range s.Pages() {
		if page%3 != 1 {
			zero.Add(page)
			clear(ram.data[page*PageSize : (page+1)*PageSize])
		}
	}
	c := &counting{ReaderAt: ram, failAt: math.MaxInt64}
	d := newFakeDest(t, s)
	p, err := restoreTo(t, d, c, func(o *RestoreOptions) { o.Zero = zero })
	if err != nil {
		t.Fatal(err)
	}
	if int64(c.bytes) != p.DataPages*PageSize || p.DataPages+zero.Count() != s.Pages() || !bytes.Equal(d.ram, ram.data) {
		t.Errorf("%d bytes were read: %+v", c.bytes, p)
	}
}

// TestNoFill holds that nothing is sent that was not asked for, and in the order in which it was.
func TestNoFill(t *testing.T) {
	s := testState()
	d := newFakeDest(t, s)
	d.wants = []pageRange{{250, 1}, {301, 1}, {10, 1}, {250, 1}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(d.came()) < 3 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err := Restore(ctx, RestoreOptions{State: s, RAM: testRAM(s, 6), Dial: d.dial, NoFill: true})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got := d.came(); !slices.Equal(got, []int64{250, 301, 10}) {
		t.Errorf("pages %v", got)
	}
}

// TestRestoreFails holds who has the VM after each failure. Only what happens before RUN leaves it where it was.
func TestRestoreFails(t *testing.T) {
	tests := []struct {
		dieAt string
		owner Owner
	}{
		{"header", Source}, {"ram", Source}, {"prepared", Source},
		{"package", Destination}, // what the destination has read of what was sent cannot be known
		{"loaded", Destination}, {"pages", Destination},
	}
	for _, test := range tests {
		t.Run(test.dieAt, func(t *testing.T) {
			s := testState()
			d := newFakeDest(t, s)
			d.dieAt = test.dieAt
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p, err := Restore(ctx, RestoreOptions{
				State: s, RAM: testRAM(s, 7), Dial: d.dial,
				Progress: func(p Progress) {
					if p.Phase == Paused {
						cancel() // it would look for the destination for ever
					}
				},
			})
			if err == nil || p.Owner != test.owner {
				t.Errorf("owner %s, error %v", p.Owner, err)
			}
			if test.owner == Source && d.runs() {
				t.Error("the VM runs, and the source has it")
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := testState()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p, err := Restore(ctx, RestoreOptions{State: s, RAM: testRAM(s, 7), Dial: newFakeDest(t, s).dial})
		if err == nil || p.Owner != Source {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("ended", func(t *testing.T) {
		s := testState()
		d := newFakeDest(t, s)
		d.dieAt = "pages"
		dials := 0
		p, err := restoreTo(t, d, testRAM(s, 7), func(o *RestoreOptions) {
			o.Dial = func(ctx context.Context) (net.Conn, error) {
				if dials++; dials > 1 {
					return nil, ErrEnded
				}
				return d.dial(ctx)
			}
		})
		if !errors.Is(err, ErrEnded) || p.Owner != Nobody || dials != 2 {
			t.Errorf("%+v, %v, after %d connections", p, err, dials)
		}
	})
	t.Run("refused in the end", func(t *testing.T) {
		s := testState()
		d := newFakeDest(t, s)
		d.shutWith = 1
		p, err := restoreTo(t, d, testRAM(s, 7), nil)
		if !errors.Is(err, ErrRefused) || p.Owner != Destination {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("unreadable RAM", func(t *testing.T) {
		s := testState()
		d := newFakeDest(t, s)
		p, err := restoreTo(t, d, &counting{ReaderAt: testRAM(s, 7), failAt: 100 * PageSize}, nil)
		if !errors.Is(err, io.ErrClosedPipe) || p.Owner != Destination || !strings.Contains(err.Error(), "pc.ram") {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestResume holds that after a loss only what is missing is sent, on the same Restore and on another.
func TestResume(t *testing.T) {
	s := testState()
	ram := testRAM(s, 8)
	t.Run("same", func(t *testing.T) {
		d := newFakeDest(t, s)
		d.dieAt, d.diePages = "pages", 100
		d.wants = []pageRange{{299, 1}}
		p, err := restoreTo(t, d, ram, nil)
		if err != nil || p.Losses != 1 || !bytes.Equal(d.ram, ram.data) || int64(len(d.came())) != s.Pages() {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("another", func(t *testing.T) {
		d := newFakeDest(t, s)
		d.dieAt, d.diePages = "pages", 50
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := Restore(ctx, RestoreOptions{State: s, RAM: ram, Dial: d.dial, Progress: func(p Progress) {
			if p.Phase == Paused {
				cancel()
			}
		}}); err == nil {
			t.Fatal("it should have been cancelled")
		}
		p, err := restoreTo(t, d, ram, func(o *RestoreOptions) { o.Resume = true })
		if err != nil || p.Owner != Destination || !bytes.Equal(d.ram, ram.data) || int64(len(d.came())) != s.Pages() {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		d := newFakeDest(t, s)
		d.ran = true
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p, err := Restore(ctx, RestoreOptions{State: s, RAM: ram, Dial: d.dial, Resume: true, NoFill: true, Progress: func(p Progress) {
			if p.Phase == Resuming {
				cancel()
			}
		}})
		d.mu.Lock()
		defer d.mu.Unlock()
		if !errors.Is(err, context.Canceled) || p.Owner != Destination || !d.resumed {
			t.Errorf("%+v, %v; QEMU ends if it is left before it has resumed: %v", p, err, d.resumed)
		}
	})
	t.Run("patience", func(t *testing.T) {
		gone := func(context.Context) (net.Conn, error) { return nil, errScript }
		p, err := Restore(t.Context(), RestoreOptions{State: s, RAM: ram, Dial: gone, Resume: true, Patience: time.Millisecond})
		if !errors.Is(err, ErrLost) || p.Owner != Destination {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestHugePages holds that all of a huge page goes at once and in order.
func TestHugePages(t *testing.T) {
	s := testState()
	const unit = hugePage / PageSize
	s.Blocks = []Block{{Name: "mem0", Size: 3 * hugePage}, {Name: "pc.bios", Size: 7 * PageSize, Offset: 3 * hugePage}}
	ram := testRAM(s, 9)
	sess, err := newSession(RestoreOptions{State: s, RAM: ram, HugePages: map[string]int64{"mem0": hugePage}})
	if err != nil {
		t.Fatal(err)
	}
	sess.batch.begin()
	sess.demand.push(pageRange{unit, unit})
	if err := sess.addDemanded(); err != nil {
		t.Fatal(err)
	}
	for page := range s.Pages() {
		if in := page >= unit && page < 2*unit; sess.sent.Has(page) != in {
			t.Fatalf("page %d: sent is %v", page, !in)
		}
	}
	if sess.batch.pages() != unit {
		t.Errorf("%d pages", sess.batch.pages())
	}
	for _, bad := range []map[string]int64{{"mem1": hugePage}, {"mem0": 1 << 30}, {"pc.bios": hugePage}} {
		if _, err := newSession(RestoreOptions{State: s, RAM: ram, HugePages: bad}); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestPace(t *testing.T) {
	p := pace{rate: 1000}
	now := time.Unix(1000, 0)
	if w := p.wait(now); w != 0 {
		t.Errorf("it waits %v at first", w)
	}
	p.sent(now, 100)
	if w := p.wait(now); w != 100*time.Millisecond {
		t.Errorf("after 100 of 1000 bytes per second it waits %v", w)
	}
	p.sent(now, 100)
	if w := p.wait(now.Add(150 * time.Millisecond)); w != 50*time.Millisecond {
		t.Errorf("it waits %v", w)
	}
	p.sent(now, 1<<40)
	if w := p.wait(now); w != maxDebt {
		t.Errorf("a debt of %v", w)
	}
	var none pace
	none.sent(now, 1<<40)
	if w := none.wait(now); w != 0 {
		t.Errorf("without a rate it waits %v", w)
	}
}
