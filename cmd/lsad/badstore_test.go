package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newestOf is the newest file of a metadata store whose name begins like that: Pebble counts them.
func newestOf(t *testing.T, data, prefix string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(data, "meta", prefix))
	if err != nil || len(all) == 0 {
		t.Fatalf("no %s in %s: %v", prefix, data, err)
	}
	return slices.Max(all)
}

// flipAt flips a bit of a file at a part of its length.
func flipAt(part float64) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[int(part*float64(len(b)))] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func cutTo(size int64) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
}

func lose(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedStore damages each kind of file of a metadata store: the start and the check say which file it is and what
// can be done, and change nothing.
func TestDamagedStore(t *testing.T) {
	onlyFull(t)
	needTool(t, "qemu-io")
	base := t.TempDir()
	p := serveIn(t, base, tiny...)
	mustSh(t, base, "qemu-io -f raw -c 'write -P 5 0 2M' "+uri("vol0"))
	p.stop()
	serveIn(t, base, again...).stop() // a manifest with a history
	for _, tt := range []struct {
		name   string
		file   string
		damage func(t *testing.T, path string)
		wants  []string // beside the file's name and the advice
	}{
		{"manifest, first record", "MANIFEST-*", flipAt(0.05), nil},
		{"manifest, last record", "MANIFEST-*", flipAt(0.97), []string{"metadata store"}},
		{"manifest cut short", "MANIFEST-*", cutTo(30), nil},
		{"manifest empty", "MANIFEST-*", cutTo(0), nil},
		{"manifest lost", "MANIFEST-*", lose, nil},
		{"marker lost", "marker.manifest.*", lose, []string{"is missing"}},
		{"format marker lost", "marker.format-version.*", lose, []string{"is missing"}},
		{"marker of another name", "marker.manifest.*", func(t *testing.T, path string) {
			if err := os.Rename(path, filepath.Join(filepath.Dir(path), "marker.x.y")); err != nil {
				t.Fatal(err)
			}
		}, []string{"marker.x.y"}},
		{"options cut short", "OPTIONS-*", cutTo(20), []string{"can be moved away"}},
		{"table, first block", "*.sst", flipAt(0.01), nil},
		{"table, middle", "*.sst", flipAt(0.5), nil},
		{"table, footer", "*.sst", flipAt(0.99), nil},
		{"table cut short", "*.sst", cutTo(100), nil},
		{"table empty", "*.sst", cutTo(0), nil},
		{"table lost", "*.sst", lose, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			mustSh(t, dir, "cp -a --sparse=always '"+base+"/lsad-data' .")
			path := newestOf(t, filepath.Join(dir, "lsad-data"), tt.file)
			tt.damage(t, path)
			name := filepath.Base(path)
			if strings.HasPrefix(name, "marker") {
				name = "marker."
			} else if strings.HasPrefix(tt.name, "manifest, last") {
				// Without its last record it is a whole manifest of before: the state is out of date, or tables that it
				// names were merged into another and are gone.
				name = ""
			}
			wants := append([]string{"lsad-data/meta", name, "nothing was changed", "--meta"}, tt.wants...)
			before := tree(t, filepath.Join(dir, "lsad-data"))
			checkFailure(t, lsad(t, dir, "serve", "--http=none"), 1, wants)
			r := lsad(t, dir, "check")
			r.stderr += r.stdout
			checkFailure(t, r, 1, wants)
			if after := tree(t, filepath.Join(dir, "lsad-data")); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}
