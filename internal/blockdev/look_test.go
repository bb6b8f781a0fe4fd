//go:build linux

package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLook: whatever becomes of the file of an open device is told.
func TestLook(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(path string) error
		want string
	}{
		"untouched": {func(string) error { return nil }, ""},
		"deleted":   {os.Remove, "deleted"},
		"cut":       {func(p string) error { return os.Truncate(p, 4096) }, "cut from 1048576 bytes to 4096"},
		"grown":     {func(p string) error { return os.Truncate(p, 2<<20) }, ""},
		"moved":     {func(p string) error { return os.Rename(p, p+".away") }, "moved"},
		"replaced": {func(p string) error {
			return errors.Join(os.Rename(p, p+".away"), os.WriteFile(p, nil, 0o600))
		}, "another file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dev")
			if err := CreateFile(path, 1<<20); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path, FileOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := tt.do(path); err != nil {
				t.Fatal(err)
			}
			err = f.(*File).Look()
			if tt.want == "" && err == nil {
				return
			}
			if !errors.Is(err, ErrMisplaced) || tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
