package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"lsad/lsa"
	"lsad/lsa/format"
)

// openArray opens the array, after creating it if there is none.
func (s *server) openArray(ctx context.Context) error {
	if s.members != nil && s.members.Creating {
		s.log.Warn("a creation of this array was cut short; beginning again", "dir", s.dir.path)
		if err := s.dir.clearCutShort(s.members); err != nil {
			return err
		}
	}
	if s.plan.create {
		if err := s.createArray(ctx); err != nil {
			return err
		}
	} else if err := s.openOld(ctx); err != nil {
		return err
	}
	tuneMemory(int64(s.cfg.MapCache))
	s.collector = newCollector(s)
	s.uses = s.openUses()
	array, err := lsa.Open(ctx, lsa.Options{
		Devices: s.devices, FS: s.meta.fs, Meta: s.meta.dir,
		MapCache: int64(s.cfg.MapCache), Degraded: s.cfg.Degraded, Logger: s.log,
		Fatal:  s.die,
		BootID: bootID(), Events: s.collector, Placement: &s.collector.placer, Uses: s.uses,
		Served: newServed(s.dir.path, s.log),
	})
	if err != nil {
		return fmt.Errorf("open the array: %w%s", err, s.openAdvice(err))
	}
	s.array = array
	s.ends.add(array.Close)
	if err := s.remember(); err != nil {
		return err
	}
	if err := s.dir.share(s.gid); err != nil { // a directory that was there, and is the array's only now
		return err
	}
	s.verifyMeta()
	return s.collector.start()
}

// die ends the process where the array cannot go on, and cannot be closed. To who starts it again it is like kill -9.
func (s *server) die(err error) {
	s.log.Error("the server ends", "error", err)
	os.Exit(exitFailed)
}

// storeAdvice is what can be done about a metadata store that cannot be used.
const storeAdvice = "; nothing was changed: name a directory that has the newest one with --meta, or put it back as it was when lsad last ran; " +
	"with metadata in two directories either one is enough, move the content of the bad one away"

// openAdvice is what can be done about an error of opening the array. With two metadata directories no single one is to
// be put back, and one may have been changed before the array was opened: it was made equal to the other.
func (s *server) openAdvice(err error) string {
	if len(s.plan.meta) == 2 && storeUnusable(err) {
		return sidesAdvice
	}
	return openAdvice(err)
}

// storeUnusable says that it is the metadata store which keeps the array from being opened.
func storeUnusable(err error) bool {
	return errors.Is(err, lsa.ErrStoreDamaged) || errors.Is(err, lsa.ErrStaleStore)
}

// sidesAdvice is where to learn what can be done about two metadata directories.
const sidesAdvice = "; lsad check says what is wrong with each metadata directory, and what can be done"

func openAdvice(err error) string {
	switch {
	case storeUnusable(err):
		return storeAdvice
	case errors.Is(err, lsa.ErrForeignDevice), errors.Is(err, lsa.ErrNotArray):
		return "; see with lsad dump which devices belong together, and name them with --device; one that is lost or was overwritten: move its file away and start with lsad serve --degraded"
	case errors.Is(err, lsa.ErrMissingDevice):
		return "; name it with --device; if it is lost, lsad serve --degraded opens the array without it"
	case errors.Is(err, lsa.ErrGivenUp):
		return "; start without it; to use it again, make it blank (dd if=/dev/zero bs=1M count=1) and give it to lsad device add"
	case errors.Is(err, lsa.ErrStaleDevice):
		return "; bring back the one that the array had last, or move this one away and start with lsad serve --degraded"
	case errors.Is(err, lsa.ErrGap):
		return "; lsad check says what is damaged; a device may be an older copy of itself, or have lost writes: without it, --degraded opens the array"
	case errors.Is(err, lsa.ErrDamaged):
		return "; lsad check says what is damaged; if it is one device, move its file away: lsad serve --degraded opens the array without it"
	}
	return ""
}

// openOld opens the devices of an array that is there.
func (s *server) openOld(ctx context.Context) (err error) {
	if s.devices, err = openDevices(s.plan.devices, false, s.cfg.Degraded); err != nil {
		return err
	}
	s.ends.add(s.closeDevices)
	return s.openMeta(ctx, false)
}

// createArray makes the device files and the array. If that is cut short by a crash, the next start finds the
// members marked and begins again; if it fails, what was made is removed.
func (s *server) createArray(ctx context.Context) error {
	if err := checkNewDevices(s.plan.devices, s.cfg.SegmentSize, "--device"); err != nil {
		return err
	}
	if err := checkNewMeta(s.plan.meta); err != nil {
		return err
	}
	m := &members{Devices: s.plan.paths(), Creating: true, Meta: s.plan.meta}
	for _, d := range s.plan.devices {
		if _, err := os.Stat(d.Path); d.Size != 0 && err != nil {
			m.Made = append(m.Made, d.Path)
		}
	}
	if err := s.dir.writeMembers(m); err != nil {
		return err
	}
	s.made.add(s.dir.removeMembers)
	if err := makeDevices(s.plan.devices, &s.made); err != nil {
		return err
	}
	specs := slices.Clone(s.plan.devices)
	for i := range specs {
		specs[i].Size = 0 // they are there now
	}
	set, err := openDevices(specs, false, false)
	if err != nil {
		return err
	}
	s.devices = set
	s.ends.add(s.closeDevices)
	if err := s.makeMeta(); err != nil {
		return err
	}
	if err := s.openMeta(ctx, true); err != nil {
		return err
	}
	err = lsa.Create(ctx, lsa.CreateOptions{
		Devices: set, FS: s.meta.fs, Meta: s.meta.dir, SegmentSize: int64(s.cfg.SegmentSize), Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("create the array: %w", err)
	}
	s.log.Info("created an array", "dir", s.dir.path, "devices", m.Devices, "segment_size", s.cfg.SegmentSize.String())
	return nil
}

// remember writes which devices the array has, if that is news. From here on a failed start removes nothing.
func (s *server) remember() error {
	readOnly := s.array.Status().ReadOnly
	s.membersMu.Lock() // metaChanged may be called from here on: the metadata is in use
	defer s.membersMu.Unlock()
	m := &members{Devices: s.plan.paths(), Meta: s.plan.meta, MetaGeneration: s.meta.generation.Load()}
	if s.members != nil {
		m.GC = s.members.GC
		if s.cfg.Degraded {
			m.Devices = s.members.Devices // the missing one may come back
			if !readOnly {                // it cannot: the array went on without it
				m.Devices = s.devices.paths()
			}
		}
	}
	old := s.members
	s.members = m
	if old == nil || old.Creating || !slices.Equal(s.dir.relative(old.Devices), s.dir.relative(m.Devices)) ||
		!slices.Equal(s.dir.relative(old.Meta), s.dir.relative(m.Meta)) || old.MetaGeneration != m.MetaGeneration {
		if err := s.dir.writeMembers(m); err != nil {
			return err
		}
	}
	s.remembered.Store(true)
	s.made.forget()
	return nil
}

// createVolumes makes the volumes that are asked for and missing.
func (s *server) createVolumes(ctx context.Context) error {
	if !s.plan.create && len(s.cfg.Volume) == 0 {
		return nil
	}
	for _, v := range s.plan.volumes {
		have, err := s.array.Volume(v.Name)
		switch {
		case errors.Is(err, lsa.ErrNotFound):
			if err := s.array.CreateVolume(ctx, v.Name, int64(v.Size)); err != nil {
				return err
			}
			s.log.Info("created a volume", "volume", v.Name, "size", v.Size.String())
		case err != nil:
			return err
		case have.Size != int64(v.Size):
			s.log.Warn("a volume has another size than asked for; lsad volume resize changes it",
				"volume", v.Name, "size", have.Size, "asked", int64(v.Size))
		}
	}
	return nil
}

// bootID names the time since the host was last started, zero if the kernel does not tell.
func bootID() format.UUID {
	var id format.UUID
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err == nil {
		copy(id[:], raw)
	}
	return id
}
