package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lsad/server/admin"
	"lsad/server/ublk"
)

// takeOverTime is how long a start waits for the kernel to be done with a server that was killed.
const takeOverTime = time.Minute

// holdDisks finds the devices that a server left that is gone, and opens what they served, before anybody can ask for
// anything: no second device is made of a volume that is one already, and what waits for it will find the volume as
// it was.
func (s *server) holdDisks(context.Context) error {
	s.disks = newLocalDisks(s, newIO())
	s.ends.add(s.disks.stop)
	s.disks.hold()
	return nil
}

// startDisks takes over the devices of a server that is gone, and makes those that the settings name.
func (s *server) startDisks(ctx context.Context) error {
	l := s.disks
	s.ends.add(l.stop) // before clients are told that the server ends
	ctx, cancel := context.WithTimeoutCause(ctx, takeOverTime, errors.New("it took too long"))
	defer cancel()
	if err := l.takeOver(ctx); err != nil {
		return err
	}
	for _, name := range s.cfg.Ublk {
		if l.has(name) {
			continue
		}
		d, err := l.AddUblk(ctx, admin.AddUblk{Volume: name})
		if err != nil {
			return fmt.Errorf("ublk %s: %w", name, err)
		}
		s.log.Info("a volume is a local disk", "volume", name, "device", d.Path)
	}
	return nil
}

// has says whether a volume is a device, served or not.
func (l *localDisks) has(name string) bool {
	key, err := l.keyOf(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	return err == nil && l.find(key) != nil
}

func (l *localDisks) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.server.log
	all, err := l.ours()
	if err != nil {
		log.Warn("could not look for ublk devices of an earlier server", "error", err)
	}
	for _, i := range all {
		name := l.nameOf(i.Key)
		if i.State == ublk.StateDead || name == "" || l.find(i.Key) != nil {
			continue
		}
		d := &localDisk{key: i.Key, waits: &i}
		if d.hold, d.problem = l.open(name, false); d.problem != nil {
			log.Error("could not open what a ublk device of an earlier server serves", "device", d.path(), "volume", name, "error", d.problem)
		}
		d.busy = "about to be taken over"
		l.disks = append(l.disks, d)
	}
}

// takeOver serves what hold found. A device that cannot be taken over is reported, and waits: who has it open loses
// nothing yet, and its volume stays as it is.
func (l *localDisks) takeOver(ctx context.Context) error {
	l.mu.Lock()
	var held []*localDisk
	for _, d := range l.disks {
		if d.waits != nil && d.busy != "" {
			l.begin(d, "being taken over")
			held = append(held, d)
		}
	}
	l.mu.Unlock()
	for _, d := range held {
		l.end(d, l.takeOverOne(ctx, d))
	}
	l.removeStrays(ctx)
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return context.Cause(ctx)
	}
	return nil
}

// takeOverOne says whether the device turned out not to be left by an earlier server.
func (l *localDisks) takeOverOne(ctx context.Context, d *localDisk) (gone bool) {
	log, name, begin := l.server.log.With("device", d.path(), "volume", l.nameOf(d.key)), l.nameOf(d.key), time.Now()
	if d.hold == nil {
		return false // it was reported
	}
	if l.mayHaveLost(name) {
		return l.giveUp(ctx, d, log)
	}
	l.flushesIO()
	dev, err := ublk.Resume(ctx, d.waits.ID, d.hold, ublk.Options{Recorder: diskRecorder{l.stats.Volume(name)}, Logger: l.server.log})
	switch {
	case errors.Is(err, ublk.ErrServed):
		// The data directory of one of the two is a copy of the other's.
		log.Warn("a ublk device with the mark of this array is left alone", "error", errors.Join(err, d.hold.Close()))
		return true
	case err != nil:
		log.Error("a ublk device of an earlier server waits on; lsad ublk del --force removes it", "error", err)
		l.mu.Lock()
		d.problem = err
		l.mu.Unlock()
		return false
	}
	l.mu.Lock()
	d.dev, d.waits, d.hold, d.problem = dev, nil, nil, nil
	l.mu.Unlock()
	log.Info("took over a ublk device", "seconds", time.Since(begin).Seconds())
	if v, err := l.server.array.Volume(name); err == nil && v.Size > dev.Size() {
		l.resize(dev, name, v.Size) // it grew while it could not be told
	}
	return false
}

// removeStrays removes devices that no server can serve any more: never started, or of volumes that are gone.
func (l *localDisks) removeStrays(ctx context.Context) {
	all, err := l.ours()
	if err != nil {
		return // hold reported it
	}
	for _, i := range all {
		name := l.nameOf(i.Key)
		if i.State != ublk.StateDead && name != "" {
			continue
		}
		log := l.server.log.With("device", blockPath(i.ID), "state", i.State, "volume", orDash(name))
		switch err := ublk.Remove(ctx, i.ID); {
		case errors.Is(err, ublk.ErrServed):
			log.Warn("a ublk device with the mark of this array is left alone", "error", err)
		case err != nil:
			log.Warn("could not remove a ublk device of an earlier server", "error", err)
		default:
			log.Info("removed a ublk device of an earlier server")
		}
	}
}
