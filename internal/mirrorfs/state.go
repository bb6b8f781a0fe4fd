package mirrorfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// state is what a side knows of itself and of the other. It is kept twice in the side's state file, written in turn,
// so that a torn write leaves the one before.
type state struct {
	id         [16]byte // of the mirror, the same on both sides
	generation uint64   // grows when the mirror is opened, and when a side is dropped
	sequence   uint64   // of writes of this file: the higher slot counts
	alone      bool     // this side went on without another
	rebuilding bool     // this side is being made equal to another: its content counts for nothing
	clean      bool     // the mirror was closed in order
}

const (
	stateMagic   = "lsadmirr"
	stateVersion = 1
	stateSize    = 52
	stateSlot    = 4096 // bytes from one slot to the next: never in one sector
	stateFile    = "mirror.state"
)

const (
	flagAlone = 1 << iota
	flagRebuilding
	flagClean
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errBadState = errors.New("not a state record")

// encode is the record: magic, version, flags, id, generation, sequence, and the CRC-32C of these; little-endian.
func (s *state) encode() []byte {
	var flags uint32
	for _, f := range []struct {
		set bool
		bit uint32
	}{{s.alone, flagAlone}, {s.rebuilding, flagRebuilding}, {s.clean, flagClean}} {
		if f.set {
			flags |= f.bit
		}
	}
	le := binary.LittleEndian
	b := append(make([]byte, 0, stateSize), stateMagic...)
	b = le.AppendUint32(b, stateVersion)
	b = le.AppendUint32(b, flags)
	b = append(b, s.id[:]...)
	b = le.AppendUint64(b, s.generation)
	b = le.AppendUint64(b, s.sequence)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeState(b []byte) (*state, error) {
	le := binary.LittleEndian
	if len(b) < stateSize || string(b[:8]) != stateMagic || crc32.Checksum(b[:48], castagnoli) != le.Uint32(b[48:]) {
		return nil, errBadState
	}
	flags := le.Uint32(b[12:])
	if v := le.Uint32(b[8:]); v != stateVersion || flags >= flagClean<<1 {
		return nil, fmt.Errorf("%w: version %d with flags %#x, this program reads version %d", errBadState, v, flags, stateVersion)
	}
	s := &state{
		generation: le.Uint64(b[32:]), sequence: le.Uint64(b[40:]),
		alone: flags&flagAlone != 0, rebuilding: flags&flagRebuilding != 0, clean: flags&flagClean != 0,
	}
	copy(s.id[:], b[16:])
	return s, nil
}

// readState returns the newest record of a state file.
func readState(f io.ReaderAt) (*state, error) {
	var newest *state
	for slot := range int64(2) {
		b := make([]byte, stateSize)
		n, err := f.ReadAt(b, slot*stateSlot)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		s, err := decodeState(b[:n])
		if err != nil {
			continue
		}
		if newest == nil || s.sequence > newest.sequence {
			newest = s
		}
	}
	if newest == nil {
		return nil, errBadState
	}
	return newest, nil
}

// writeState makes s the side's state, durably. The first write takes the room for all later ones.
func (s *side) writeState(next state) error {
	if s.state != nil {
		next.sequence = s.state.sequence + 1
	} else {
		next.sequence = 1
	}
	if s.record == nil {
		if err := s.openRecord(); err != nil {
			return fmt.Errorf("state of %s: %w", s.Dir, err)
		}
	}
	_, err := s.record.WriteAt(next.encode(), int64(next.sequence%2)*stateSlot)
	if err == nil {
		err = s.record.Sync()
	}
	if err != nil {
		return fmt.Errorf("state of %s: %w", s.Dir, err)
	}
	s.state = &next
	return nil
}

func (s *side) openRecord() error {
	f, err := s.FS.OpenReadWrite(s.path(stateFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if s.state == nil {
		// What a damaged file holds must not count beside the new record.
		if _, err = f.WriteAt(make([]byte, 2*stateSlot), 0); err == nil {
			err = f.Sync()
		}
	}
	if err == nil {
		err = s.syncDir()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.record = f
	return nil
}
