package lsa

import (
	"fmt"
	"log/slog"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestStoreErrorText damages a table: programs can tell the error of reading it from others, and people can read it.
func TestStoreErrorText(t *testing.T) {
	fs, log := vfs.NewMem(), slog.New(slog.DiscardHandler)
	db, err := openMetastore(fs, "meta", true, false, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if err := db.Set(fmt.Appendf(nil, "%c%08d", keyVolume, i), make([]byte, 500), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("meta")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			f, err := fs.OpenReadWrite(path.Join("meta", name), vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("damage"), 100); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	if db, err = openMetastore(fs, "meta", false, true, log, nil); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = eachRow(db, keyVolume, func(_, _ []byte) error { return nil })
	if !pebble.IsCorruptionError(err) || strings.Contains(err.Error(), "carrier") || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("reading a damaged table: %v", err)
	}
}
