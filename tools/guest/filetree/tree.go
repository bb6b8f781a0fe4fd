package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// tree is what the files ought to hold.
type tree struct {
	files map[string][]byte
}

func newTree() *tree { return &tree{files: map[string][]byte{}} }

// apply does an operation in the model.
func (t *tree) apply(op operation) error {
	old, exists := t.files[op.name]
	if exists == (op.kind == create) {
		return fmt.Errorf("%s: cannot be: exists is %t", op.name, exists)
	}
	switch op.kind {
	case create:
		t.files[op.name] = op.data
	case overwrite:
		end := int(op.offset) + len(op.data)
		if end > len(old) {
			old = append(old, make([]byte, end-len(old))...)
		}
		copy(old[op.offset:], op.data)
		t.files[op.name] = old
	case extend:
		t.files[op.name] = append(old, op.data...)
	case truncate:
		t.files[op.name] = old[:op.offset]
	case rename:
		t.files[op.to] = old
		delete(t.files, op.name)
	case remove:
		delete(t.files, op.name)
	}
	return nil
}

func (t *tree) size() (files int, size int64) {
	for _, data := range t.files {
		size += int64(len(data))
	}
	return len(t.files), size
}

// compare checks that the files below root are those of the model.
func (t *tree) compare(root string) error {
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "lost+found" {
				return filepath.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		want, ok := t.files[name]
		if !ok {
			return fmt.Errorf("%s: should not exist", name)
		}
		seen++
		return compareFile(path, want)
	})
	if err != nil {
		return err
	}
	if seen != len(t.files) {
		return fmt.Errorf("%d files are there instead of %d", seen, len(t.files))
	}
	return nil
}

func compareFile(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("%s: byte %d is %#x instead of %#x (sizes %d and %d)",
				path, i, got[i], want[i], len(got), len(want))
		}
	}
	return fmt.Errorf("%s: %d bytes long instead of %d", path, len(got), len(want))
}
