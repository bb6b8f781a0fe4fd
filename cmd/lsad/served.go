package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lsad/lsa/format"
)

// served remembers, in a file that is gone when the machine is (/run), what epoch the array in a data directory had last. A
// copy of the directory that was put in its place is known by that. It implements lsa.Served.
type served struct {
	dir  string // "": nothing is remembered
	data string // the data directory, absolute
	log  *slog.Logger
}

func newServed(data string, log *slog.Logger) *served {
	abs, err := filepath.Abs(data)
	if err != nil {
		abs = data
	}
	return &served{dir: runtimeDir(os.Getenv, os.Geteuid()), data: abs, log: log}
}

// runtimeDir is where this process may keep what does not outlive the machine: systemd's RuntimeDirectory, or root's, or
// that of the user's session.
func runtimeDir(getenv func(string) string, uid int) string {
	if dir, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if uid == 0 {
		return "/run/lsad"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "lsad")
	}
	return ""
}

func (s *served) path(array format.UUID) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%08x.epoch", array, hash32(s.data)))
}

// Last implements lsa.Served.
func (s *served) Last(array format.UUID) uint64 {
	if s.dir == "" {
		return 0
	}
	text, err := os.ReadFile(s.path(array))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var epoch uint64
	if err == nil {
		epoch, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	if err != nil {
		s.log.Warn("what was served here before is not known: a data directory that was restored from a copy would not be noticed", "error", err)
		return 0
	}
	return epoch
}

// Note implements lsa.Served.
func (s *served) Note(array format.UUID, epoch uint64) {
	if s.dir == "" {
		return
	}
	path := s.path(array)
	err := os.Mkdir(s.dir, 0o755)
	switch {
	case err == nil:
		err = os.Chmod(s.dir, 0o755) // whatever the umask: sockets that others use may be put here, too
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err == nil {
		err = os.WriteFile(path+".new", strconv.AppendUint(nil, epoch, 10), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		s.log.Warn("could not note what is served: a data directory that is restored from a copy will not be noticed", "error", err)
	}
}
