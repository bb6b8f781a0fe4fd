//go:build linux

package blockdev

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FineClock is a Clock that wakes sleepers within some 10 us of their time,
// where time.Sleep rounds up to a millisecond when the process is idle. It
// does so without spinning: one goroutine waits on a timerfd for the first of
// all sleepers, and the timer is set early by as much as the last wake-ups
// came late. A sleep that is shorter than a wake-up takes (some 50 us on an
// idle virtual machine) ends late by the difference.
type FineClock struct {
	timer *os.File
	fd    int // of timer, which must not be asked for it: it would then block
	done  chan struct{}

	mu       sync.Mutex
	sleepers []sleeper // the one to be woken next comes last
	alarm    time.Time // what the timer is set to; zero: not set
	late     time.Duration
	closed   bool
}

type sleeper struct {
	at   time.Time
	wake chan struct{}
}

const (
	// early is how long before its time a sleeper may be woken.
	early = 5 * time.Microsecond
	// maxLate bounds how late a wake-up is expected to be, so that an
	// overloaded machine does not make the clock run fast.
	maxLate = 100 * time.Microsecond
)

var wakeChans = sync.Pool{New: func() any { return make(chan struct{}, 1) }}

// NewFineClock starts a clock; Close stops it.
func NewFineClock() (*FineClock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a timer: %w", err)
	}
	c := &FineClock{timer: os.NewFile(uintptr(fd), "timerfd"), fd: fd, done: make(chan struct{})}
	go c.run()
	return c, nil
}

// Now implements Clock.
func (c *FineClock) Now() time.Time { return time.Now() }

// SleepUntil implements Clock. It returns early if the clock is closed.
func (c *FineClock) SleepUntil(t time.Time) {
	wake := c.add(t)
	if wake == nil {
		return
	}
	<-wake
	wakeChans.Put(wake)
}

// add puts a sleeper on the list, or returns nil if it need not sleep.
func (c *FineClock) add(t time.Time) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || time.Until(t) <= early {
		return nil
	}
	wake := wakeChans.Get().(chan struct{})
	at, _ := slices.BinarySearchFunc(c.sleepers, t, func(s sleeper, t time.Time) int { return t.Compare(s.at) })
	c.sleepers = slices.Insert(c.sleepers, at, sleeper{t, wake})
	if at == len(c.sleepers)-1 {
		c.setAlarm()
	}
	return wake
}

// setAlarm sets the timer for the next sleeper.
func (c *FineClock) setAlarm() {
	c.alarm = time.Time{}
	if len(c.sleepers) == 0 {
		return
	}
	now := time.Now()
	wait := max(1, c.sleepers[len(c.sleepers)-1].at.Sub(now)-c.late)
	c.alarm = now.Add(wait)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}
	if err := unix.TimerfdSettime(c.fd, 0, &spec, nil); err != nil {
		panic(fmt.Sprintf("set a timer to %v: %v", wait, err)) // no argument of ours can be wrong
	}
}

// run wakes sleepers until the timer is closed.
func (c *FineClock) run() {
	defer close(c.done)
	var expirations [8]byte
	for {
		if _, err := c.timer.Read(expirations[:]); err != nil {
			return
		}
		c.ring()
	}
}

// ring wakes whoever is due and sets the timer for the next.
func (c *FineClock) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	now := time.Now()
	if late := now.Sub(c.alarm); !c.alarm.IsZero() && late >= 0 {
		c.late += (min(late, maxLate) - c.late) / 16
	}
	for n := len(c.sleepers); n > 0 && c.sleepers[n-1].at.Sub(now) <= early; n-- {
		c.sleepers[n-1].wake <- struct{}{}
		c.sleepers = c.sleepers[:n-1]
	}
	c.setAlarm()
}

// Close stops the clock and wakes everyone.
func (c *FineClock) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, s := range c.sleepers {
		s.wake <- struct{}{}
	}
	c.sleepers = nil
	err := c.timer.Close()
	c.mu.Unlock()
	<-c.done
	return err
}
