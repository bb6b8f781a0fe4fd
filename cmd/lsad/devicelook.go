package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// lookEvery is how often the server sees whether its devices' files are still where they were.
const lookEvery = 5 * time.Second

// looker is a device whose file somebody may delete, cut or move while it is open. Reads and writes may go on well then,
// for as long as the server runs.
type looker interface{ Look() error }

// misplaced says of the devices, by name, what became of their files.
func (s *server) misplaced() map[string]error {
	s.membersMu.Lock()
	devices := s.devices
	s.membersMu.Unlock()
	var all map[string]error
	for _, d := range devices {
		if l, ok := d.(looker); ok {
			if err := l.Look(); err != nil {
				if all == nil {
					all = map[string]error{}
				}
				all[d.Name()] = err
			}
		}
	}
	return all
}

// deviceHealth is an error if the file of a device is not where or what it was.
func (s *server) deviceHealth() error {
	all := s.misplaced()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		errs = append(errs, all[name])
	}
	return errors.Join(errs...)
}

// watchDevices logs once what becomes of a device's file.
func (s *server) watchDevices(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for name, err := range s.misplaced() {
			if said[name] != err.Error() {
				said[name] = err.Error()
				s.log.Error("the file of a device was deleted, cut or moved while it is in use", "device", name, "error", err)
			}
		}
	}
}
