// Package deptest holds the directions in which the packages of lsad import
// one another. It reads the import lines of every file in the tree, whatever
// its build constraints, so that no platform and no tag is left out.
package deptest

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "lsad"

// source is one file, by its path in the module, and what it imports.
type source struct {
	path    string
	imports []string
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// top is the first element of a path in the module: "server" of "server/nbd".
func top(p string) string {
	first, _, _ := strings.Cut(p, "/")
	return first
}

// rule says what the packages below one directory may not import.
type rule struct {
	// dir is the top directory that it binds; "" binds all.
	dir string
	// only, if not nil, are the top directories of the module that may be imported.
	only []string
	// never are the top directories that must not be.
	never []string
	// tests says that it binds test files as well: a test may use real parts
	// from elsewhere where what it tests may not.
	tests bool
	why   string
}

var rules = []rule{
	{
		dir: "lsa", only: []string{"lsa", "internal"},
		why: "the array is the bottom: what serves, collects or commands it comes to it, so that it can be tested and crashed alone",
	},
	{
		dir: "gc", only: []string{"gc"},
		why: "the collector declares the interface of what it collects, so that the simulator and the server run the very same code; it knows no format and no device",
	},
	{
		dir: "server", only: []string{"server", "internal"},
		why: "a protocol declares the small interface that it serves, so that it can serve anything and be tested with a slice of bytes",
	},
	{
		dir: "memsvc", never: []string{"lsa", "gc", "server"},
		why: "images reach storage through an interface: an image may live in an array, in a file or behind another server",
	},
	{
		dir: "kvmhook", never: []string{"lsa", "gc", "server"},
		why: "the destination side runs on a machine that has no array; pages come to it through an interface",
	},
	{
		dir: "internal", only: []string{"internal"}, tests: true,
		why: "it is what everything else stands on, so that it can stand on nothing of them",
	},
	{
		never: []string{"cmd", "tools"}, tests: true,
		why: "commands and tools wire things up; what two of them need belongs into a package of its own",
	},
}

// breaks returns why a file may not import a directory of the module, or "".
func (r rule) breaks(s source, imported string) string {
	from, to := top(s.path), top(imported)
	switch {
	case r.dir != "" && r.dir != from, s.isTest() && !r.tests:
		return ""
	case from == to: // a directory's own packages, whatever the rule
		return ""
	case r.only != nil && !slices.Contains(r.only, to), slices.Contains(r.never, to):
		return r.why
	}
	return ""
}

const whyUnsafe = "unsafe code is read with other eyes than the rest: it belongs into a file whose name ends in _unsafe.go, and into as few lines as can be"

// violations returns a line for each import that breaks a rule.
func violations(s source) []string {
	var found []string
	complain := func(imported, why string) {
		found = append(found, fmt.Sprintf("%s imports %s, and must not: %s", s.path, imported, why))
	}
	for _, imported := range s.imports {
		if imported == "unsafe" && !strings.HasSuffix(s.path, "_unsafe.go") && !s.isTest() {
			complain(imported, whyUnsafe)
		}
		dir, own := strings.CutPrefix(imported, module+"/")
		if !own {
			continue
		}
		for _, r := range rules {
			if why := r.breaks(s, dir); why != "" {
				complain(imported, why)
			}
		}
	}
	return found
}

// readTree parses the import lines of all Go files of the module.
func readTree(root string) ([]source, error) {
	var sources []source
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(root, name)
		}
		if path.Ext(name) != ".go" || strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		s, err := readSource(root, name)
		sources = append(sources, s)
		return err
	})
	return sources, err
}

// skipDir returns fs.SkipDir for what is not part of the module.
func skipDir(root, name string) error {
	if name == "." {
		return nil
	}
	base := path.Base(name)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(root, name, "go.mod")); err == nil {
		return fs.SkipDir // a module of its own
	}
	return nil
}

func readSource(root, name string) (source, error) {
	s := source{path: name}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
	if err != nil {
		return s, err
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return s, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		s.imports = append(s.imports, imported)
	}
	return s, nil
}

func TestImportDirections(t *testing.T) {
	const root = "../.."
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module "+module+"\n") {
		t.Fatalf("%s is not the root of module %s: %v", root, module, err)
	}
	sources, err := readTree(root)
	if err != nil {
		t.Fatal(err)
	}
	// The walk itself must work: this file and its neighbour are there.
	for _, known := range []string{"internal/deptest/deptest_test.go", "internal/blockdev/file_unsafe.go"} {
		if !slices.ContainsFunc(sources, func(s source) bool { return s.path == known }) {
			t.Fatalf("the walk over the tree did not find %s", known)
		}
	}
	for _, s := range sources {
		for _, v := range violations(s) {
			t.Error(v)
		}
	}
}

// Each rule finds what it is there for, and lets the rest be.
func TestRules(t *testing.T) {
	tests := []struct {
		path, imports string
		allowed       bool
	}{
		{"lsa/array.go", "lsad/internal/blockdev", true},
		{"lsa/array.go", "lsad/lsa/format", true},
		{"lsa/array.go", "lsad/gc", false},
		{"lsa/format/record.go", "lsad/server/nbd", false},
		{"lsa/array_test.go", "lsad/gc", true},
		{"gc/runner.go", "lsad/lsa", false},
		{"gc/runner.go", "lsad/internal/blockdev", false},
		{"gc/runner.go", "lsad/gc/policy", true},
		{"gc/runner.go", "lsad/server/nbd", false},
		{"server/nbd/conn.go", "lsad/lsa", false},
		{"server/ublk/queue.go", "lsad/gc", false},
		{"server/ublk/queue.go", "lsad/server/nbd", true},
		{"server/ublk/queue.go", "lsad/internal/blockdev", true},
		{"memsvc/image.go", "lsad/lsa/format", false},
		{"memsvc/qemu/stream.go", "lsad/server/nbd", false},
		{"memsvc/image.go", "lsad/kvmhook", true},
		{"kvmhook/fault.go", "lsad/lsa", false},
		{"kvmhook/fault.go", "lsad/server/nbd", false},
		{"internal/blockdev/file.go", "lsad/lsa", false},
		{"internal/blockdev/file_test.go", "lsad/lsa", false},
		{"internal/blockdev/file.go", "lsad/internal/config", true},
		{"lsa/array_test.go", "lsad/cmd/lsad", false},
		{"cmd/lsad/main.go", "lsad/tools/bench", false},
		{"cmd/lsad/main.go", "lsad/lsa", true},
		{"cmd/lsad/main.go", "lsad/cmd/lsad/flags", true},
		{"tools/gcsim/main.go", "lsad/tools/gcsim/sim", true},
		{"tools/gcsim/main.go", "lsad/gc", true},
		{"lsa/array.go", "unsafe", false},
		{"lsa/array_unsafe.go", "unsafe", true},
		{"lsa/array_test.go", "unsafe", true},
		{"lsa/array.go", "github.com/cockroachdb/pebble/v2", true},
	}
	for _, test := range tests {
		found := violations(source{test.path, []string{test.imports}})
		if (len(found) == 0) != test.allowed {
			t.Errorf("%s importing %s: got %q, allowed should be %v", test.path, test.imports, found, test.allowed)
		}
	}
}
