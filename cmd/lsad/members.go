package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"lsad/gc"
)

// members is DIR/array.toml: what a server must know of its array before it can open it, and
// settings of the array that a command changed. Paths in the data directory are kept relative to
// it, so that it can be moved.
type members struct {
	Version int      `toml:"version"`
	Devices []string `toml:"devices"`
	// Creating: the array was being created when this was written; Made are the files that were
	// made for it. If this is found at a start, the creation was cut short and nobody ever used
	// the array.
	Creating bool      `toml:"creating,omitempty"`
	Made     []string  `toml:"made,omitempty"`
	GC       gc.Config `toml:"gc,omitempty"`
	// Meta are the directories of the metadata store, none for DIR/meta; MetaGeneration is the last that their mirror
	// was known to have.
	Meta           []string `toml:"meta,omitempty"`
	MetaGeneration uint64   `toml:"meta-generation,omitempty"`
}

const membersVersion = 1

const membersHeader = "# Written by lsad; it is read at each start. Do not edit it while the server runs.\n"

// readMembers returns nil where there is no array.
func (d *dataDir) readMembers() (*members, error) {
	path := d.file(memberFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the array's members: %w", err)
	}
	var m members
	meta, err := toml.Decode(string(text), &m)
	if err == nil && len(meta.Undecoded()) > 0 {
		err = fmt.Errorf("unknown key %q", meta.Undecoded()[0].String())
	}
	if err == nil && strings.TrimSpace(string(text)) == "" {
		err = errors.New("it is empty")
	}
	if err == nil && m.Version != membersVersion {
		err = fmt.Errorf("version %d, this program reads %d", m.Version, membersVersion)
	}
	if err == nil && len(m.Devices) == 0 {
		err = errors.New("no devices")
	}
	if err == nil {
		err = m.GC.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %s; name the devices with --device after moving it away", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	for _, list := range [][]string{m.Devices, m.Made, m.Meta} {
		for i, p := range list {
			if !filepath.IsAbs(p) {
				list[i] = d.file(p)
			}
		}
	}
	return &m, nil
}

// writeMembers replaces the file durably.
func (d *dataDir) writeMembers(m *members) error {
	kept := *m
	kept.Version = membersVersion
	kept.Devices = d.relative(m.Devices)
	kept.Made = d.relative(m.Made)
	kept.Meta = d.relative(m.Meta)
	var buf bytes.Buffer
	buf.WriteString(membersHeader)
	if err := toml.NewEncoder(&buf).Encode(kept); err != nil {
		return fmt.Errorf("write %s: %w", memberFile, err)
	}
	if err := replaceFile(d.file(memberFile), buf.Bytes()); err != nil {
		return fmt.Errorf("remember the array's members: %w", err)
	}
	return nil
}

// changeMembers changes what the data directory remembers, durably or not at all.
func (s *server) changeMembers(change func(*members)) error {
	s.membersMu.Lock()
	defer s.membersMu.Unlock()
	m := *s.members
	m.Devices = slices.Clone(m.Devices)
	change(&m)
	if err := s.dir.writeMembers(&m); err != nil {
		return err
	}
	s.members = &m
	return nil
}

// gcSettings are those that the data directory remembers.
func (s *server) gcSettings() gc.Config {
	s.membersMu.Lock()
	defer s.membersMu.Unlock()
	return s.members.GC
}

func (d *dataDir) removeMembers() error {
	if err := os.Remove(d.file(memberFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// relative gives paths in the data directory relative to it, and all others absolute.
func (d *dataDir) relative(paths []string) []string {
	var out []string
	dir, err := filepath.Abs(d.path)
	for _, p := range paths {
		abs, err2 := filepath.Abs(p)
		if err != nil || err2 != nil {
			out = append(out, p)
			continue
		}
		if rel, err := filepath.Rel(dir, abs); err == nil && filepath.IsLocal(rel) {
			abs = rel
		}
		out = append(out, abs)
	}
	return out
}

// replaceFile writes a file so that after a power loss it is the old or the new one.
func replaceFile(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
