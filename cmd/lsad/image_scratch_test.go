package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestScratchFull holds that a full file system of the data directory is not taken for a full array.
func TestScratchFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if _, err := (ramFile{full}).WriteAt(make([]byte, 4096), 0); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "the file system of /dev lacks the room") {
		t.Errorf("got %v", err)
	}
}

// TestScratchFile holds that the file has no name, and holds what is written.
func TestScratchFile(t *testing.T) {
	dir := t.TempDir()
	f, err := scratchFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if filepath.Dir(f.Name()) != dir {
		t.Errorf("it calls itself %s", f.Name())
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 0 {
		t.Errorf("names %v, %v", all, err)
	}
	if _, err := (ramFile{f}).WriteAt([]byte("hello"), 4096); err != nil {
		t.Fatal(err)
	}
	if err := (ramFile{f}).Zero(0, 4096); err != nil {
		t.Logf("no holes here: %v", err)
	}
}
