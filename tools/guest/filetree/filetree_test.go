package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVerifyNotices holds that verify accepts what write made and nothing
// else.
func TestVerifyNotices(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"none":       func(string) error { return nil },
		"a bit":      flipBit,
		"a missing":  os.Remove,
		"one more":   func(path string) error { return os.WriteFile(path+"x", nil, 0o644) },
		"a tail cut": func(path string) error { return os.Truncate(path, 0) },
		"a tail added": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write([]byte{0})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := run([]string{"write", dir, "7", "300"}); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
			if err != nil || len(files) < 50 {
				t.Fatalf("%d files, %v", len(files), err)
			}
			if err := damage(files[len(files)/2]); err != nil {
				t.Fatal(err)
			}
			err = run([]string{"verify", dir, "7", "300"})
			if (err == nil) != (name == "none") {
				t.Fatalf("verify after damage %q: %v", name, err)
			}
		})
	}
}

// TestOperations holds that a sequence does everything at least once.
func TestOperations(t *testing.T) {
	seen := map[kind]int{}
	err := generate(7, 300, func(op operation) error {
		seen[op.kind]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for k := create; k <= remove; k++ {
		if seen[k] == 0 {
			t.Errorf("no operation of kind %d among 300", k)
		}
	}
}

func flipBit(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 4
	return os.WriteFile(path, data, 0o644)
}
