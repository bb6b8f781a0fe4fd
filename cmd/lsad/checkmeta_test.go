package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The metadata directories of these tests: in the data directory, so that it can be copied.
var twoInside = []string{"--meta=lsad-data/meta", "--meta=lsad-data/m2"}

// twoSided makes a stopped array of two metadata directories, both of the same two generations, with a pattern in vol0.
func twoSided(t *testing.T) (base string) {
	t.Helper()
	needTool(t, "qemu-io")
	base = t.TempDir()
	p := serveIn(t, base, append(slices.Clone(tiny), twoInside...)...)
	writePattern(t, base, "6")
	p.stop()
	serveIn(t, base, again...).stop() // a manifest with a history
	return base
}

// copied is a copy of an array.
func copied(t *testing.T, base string) (dir, data string) {
	t.Helper()
	dir = t.TempDir()
	mustSh(t, dir, "cp -a --sparse=always '"+base+"/lsad-data' .")
	return dir, filepath.Join(dir, "lsad-data")
}

// inNewest does something to the newest file of a kind in a metadata directory.
func inNewest(prefix string, do func(t *testing.T, path string)) func(t *testing.T, side string) {
	return func(t *testing.T, side string) {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(side, prefix))
		if err != nil || len(all) == 0 {
			t.Fatalf("no %s in %s: %v", prefix, side, err)
		}
		do(t, slices.Max(all))
	}
}

func loseTables(t *testing.T, side string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(side, "*.sst"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no tables in %s: %v", side, err)
	}
	for _, path := range all {
		lose(t, path)
	}
}

// checkChangesNothing runs lsad check and wants an exit code and what it prints.
func checkChangesNothing(t *testing.T, dir string, code int, wants ...string) {
	t.Helper()
	before := tree(t, dir)
	r := lsad(t, dir, "check")
	if after := tree(t, dir); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	r.stderr += r.stdout
	checkFailure(t, r, code, wants)
}

// TestCheckSides damages or takes away either of two metadata directories. The check names it and says what becomes of
// it, judges all else by the other one, and changes nothing; the server does what was said.
func TestCheckSides(t *testing.T) {
	oneByOne(t)
	base := twoSided(t)
	checkChangesNothing(t, base, 0, "1024 blocks (4.0 MiB) verified", "nothing is wrong")
	const next, later = "the next lsad serve makes ", "and the start after that makes it equal"
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, side string)
		what   string // is wrong
		advice string
	}{
		{"tables flipped", flipTables, ".sst: damaged data", later},
		{"one byte of a table flipped", inNewest("*.sst", flipAt(0.2)), ".sst: damaged data", later},
		{"table cut short", inNewest("*.sst", cutTo(100)), ".sst", next},
		{"tables lost", loseTables, ".sst", next},
		{"manifest flipped near its end", inNewest("MANIFEST-*", flipAt(0.97)), "ends after", next},
		{"manifest cut near its end", inNewest("MANIFEST-*", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			cutTo(info.Size()-20)(t, path)
		}), "ends after", next},
		{"manifest lost", inNewest("MANIFEST-*", lose), "MANIFEST-", next},
		{"marker lost", inNewest("marker.manifest.*", lose), "marker.manifest.* is missing", next},
		{"options cut short", inNewest("OPTIONS-*", cutTo(20)), "OPTIONS-", next},
		{"state damaged", inNewest("mirror.state", cutTo(20)), "left out, the other one counts alone: its state is damaged", next},
		{"missing", func(t *testing.T, side string) { os.RemoveAll(side) }, "left out, the other one counts alone: missing", next},
		{"empty", func(t *testing.T, side string) {
			os.RemoveAll(side)
			os.Mkdir(side, 0o700)
		}, "left out, the other one counts alone: empty", next},
		{"a file", func(t *testing.T, side string) {
			os.RemoveAll(side)
			os.WriteFile(side, nil, 0o600)
		}, "left out, the other one counts alone: ", "goes on with it alone"},
	} {
		for i, name := range []string{"meta", "m2"} {
			t.Run(tt.name+" in "+name, func(t *testing.T) {
				dir, data := copied(t, base)
				side := filepath.Join("lsad-data", name)
				other := filepath.Join("lsad-data", []string{"m2", "meta"}[i])
				tt.damage(t, filepath.Join(data, name))
				checkChangesNothing(t, dir, 1, "metadata: "+side+": ", tt.what, "metadata directory "+other+" is whole", tt.advice,
					"1024 blocks (4.0 MiB) verified", "problems: ")
				if i == 0 && tt.advice == later || os.Getenv("LSAD_TEST") != "full" && tt.name != "missing" {
					return // the server reads the first one: TestMetaDirs
				}
				p := serveIn(t, dir, again...)
				if tt.advice == next {
					p.wantDirs("meta m2")
				}
				wantPattern(t, dir, "6")
				p.stop()
				if tt.advice == next {
					checkChangesNothing(t, dir, 0)
				}
			})
		}
	}
}

// TestCheckLeftOut: a metadata directory that missed changes is said to be left out, and nothing else of it. What a kill
// leaves is no damage.
func TestCheckLeftOut(t *testing.T) {
	oneByOne(t)
	base := twoSided(t)
	dir, data := copied(t, base)
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, filepath.Join(data, "m2"), old)
	p := serveIn(t, dir, again...)
	writePattern(t, dir, "7")
	p.kill()
	checkChangesNothing(t, dir, 0, "nothing is wrong")
	copyTree(t, old, filepath.Join(data, "m2"))
	checkChangesNothing(t, dir, 1, "metadata: lsad-data/m2: it is left out, the other one counts alone: out of date: of generation 2, the other of 3",
		"the next lsad serve makes lsad-data/m2 equal to it", "problems: 1")
	type report struct {
		Problems []struct{ Kind, Where string }
		Advice   []string
	}
	r := lsad(t, dir, "check", "--json")
	var got report
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 1 || len(got.Problems) != 1 || got.Problems[0].Kind != "metadata" || len(got.Advice) != 1 {
		t.Errorf("%v, %d, %s", err, r.code, r.stdout)
	}
	p = serveIn(t, dir, append(slices.Clone(again), "--meta=lsad-data/meta")...) // for one, that is all it should have
	p.stop()
	checkChangesNothing(t, dir, 0, "nothing is wrong")
}

// TestBothSidesDamaged leaves no metadata directory that is whole. The check says so, and what it says can be done helps
// where something can.
func TestBothSidesDamaged(t *testing.T) {
	oneByOne(t)
	base := twoSided(t)
	away := func(t *testing.T, side string) { os.RemoveAll(side) }
	flipped := func(part float64) func(t *testing.T, side string) {
		return func(t *testing.T, side string) {
			all, _ := filepath.Glob(filepath.Join(side, "*.sst"))
			for _, path := range all {
				if info, err := os.Stat(path); err == nil && info.Size() > 8<<10 { // many blocks
					flipAt(part)(t, path)
				}
			}
		}
	}
	cut := inNewest("MANIFEST-*", cutTo(200))
	for _, tt := range []struct {
		name        string
		first       func(t *testing.T, side string)
		second      func(t *testing.T, side string)
		check       []string
		serve       string // "" if it depends on what is read first
		canBeMended bool
	}{
		{"first missing, tables of the second lost", away, loseTables,
			[]string{"metadata: lsad-data/m2: ", "metadata: lsad-data/meta: it is left out", "put lsad-data/m2 back"}, "no copy is made", false},
		{"second missing, tables of the first lost", loseTables, away,
			[]string{"metadata: lsad-data/meta: ", "put lsad-data/meta back"}, "no copy is made", false},
		{"first missing, manifest of the second cut", away, cut, []string{"put lsad-data/m2 back"}, "no copy is made", false},
		{"first missing, tables of the second flipped", away, flipTables, []string{"put lsad-data/m2 back"}, "no copy is made", false},
		{"tables of both lost", loseTables, loseTables, []string{"are both damaged", "put one of them back"}, "a file of it is damaged", false},
		{"tables of both flipped", flipped(0.2), flipped(0.5), []string{"are both damaged", "empty the file lsad-data/m2/mirror.state"}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, data := copied(t, base)
			tt.first(t, filepath.Join(data, "meta"))
			tt.second(t, filepath.Join(data, "m2"))
			checkChangesNothing(t, dir, 1, tt.check...)
			if tt.serve != "" {
				before := tree(t, dir)
				r := lsad(t, dir, append([]string{"serve"}, again...)...)
				checkFailure(t, r, 1, []string{tt.serve, "lsad check says what is wrong with each metadata directory"})
				if strings.Contains(r.stderr, "nothing was changed") || strings.Contains(r.stderr, "equals the other") {
					t.Errorf("the server said %s", r.stderr)
				}
				if after := tree(t, dir); after != before && tt.serve == "no copy is made" {
					t.Errorf("before\n%s\nafter\n%s", before, after)
				}
			}
			if tt.canBeMended {
				cutTo(0)(t, filepath.Join(data, "m2/mirror.state"))
				p := serveIn(t, dir, again...)
				p.wantDirs("meta m2")
				wantPattern(t, dir, "6")
				p.stop()
				checkChangesNothing(t, dir, 0, "nothing is wrong")
			}
		})
	}
}
