package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"lsad/gc"
	"lsad/internal/config"
	"lsad/lsa"
)

// TestHelp holds that every command says what it does, with examples of itself.
func TestHelp(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s has no short text or no example", path)
		}
		if !strings.Contains(cmd.Example, path) {
			t.Errorf("the example of %s is of another command:\n%s", path, cmd.Example)
		}
		if cmd.RunE == nil {
			t.Errorf("%s does nothing", path)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRoot())
}

// TestExamples parses every command line of the examples.
func TestExamples(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			for _, part := range strings.FieldsFunc(line, func(r rune) bool { return r == '|' || r == ';' || r == '>' }) {
				if words := strings.Fields(strings.Split(part, "   ")[0]); len(words) > 0 && words[0] == "lsad" {
					checkExample(t, words[1:])
				} else if words := strings.Fields(part); len(words) > 0 && words[0] == "lsad" {
					checkExample(t, words[1:])
				}
			}
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRoot())
}

func checkExample(t *testing.T, words []string) {
	t.Helper()
	for i, w := range words { // what follows two blanks is an explanation
		words[i] = strings.Trim(w, "'")
	}
	root := newRoot()
	cmd, rest, err := root.Find(words)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil || len(words) > 0 && cmd == root && words[0] != "--version" {
		t.Errorf("example lsad %v: %v", words, err)
	}
}

func TestLimitsMatchTheArray(t *testing.T) {
	if config.BlockSize != 4096 || lsa.MaxVolumeSize%config.BlockSize != 0 {
		t.Error("the settings and the array disagree about blocks")
	}
	for _, name := range []string{"a", "A.b-c_d", "0", strings.Repeat("x", 63), strings.Repeat("x", 64), "", ".a", "-a", "a/b", "a b", "a@b", "é"} {
		if a, b := config.CheckVolumeName(name) == nil, lsa.CheckName(name) == nil; a != b {
			t.Errorf("name %q: the settings say %v, the array %v", name, a, b)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"": "''", "a/b.c": "a/b.c", "a b": "'a b'", "it's": `'it'\''s'`, "a;b": "'a;b'", "é": "'é'"} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestMembersRoundTrip(t *testing.T) {
	d := &dataDir{path: t.TempDir()}
	if m, err := d.readMembers(); m != nil || err != nil {
		t.Errorf("of an empty directory: %+v, %v", m, err)
	}
	phase := 0.25
	in := &members{
		Devices: []string{d.file("dev0"), "/dev/sdz", d.file("sub/../dev1")},
		GC:      gc.Config{Policy: "greedy", Devices: map[string]gc.DeviceConfig{"dev0": {Phase: &phase}}},
	}
	if err := d.writeMembers(in); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.file(memberFile))
	if err != nil || !strings.Contains(string(text), `devices = ["dev0", "/dev/sdz", "dev1"]`) {
		t.Errorf("written: %s %v", text, err)
	}
	out, err := d.readMembers()
	if err != nil || len(out.Devices) != 3 || out.Devices[0] != d.file("dev0") || out.Devices[1] != "/dev/sdz" || out.Devices[2] != d.file("dev1") {
		t.Errorf("read back: %+v, %v", out, err)
	}
	if out.GC.Policy != "greedy" || *out.GC.Devices["dev0"].Phase != phase {
		t.Errorf("settings read back: %+v", out.GC)
	}
	if entries, _ := filepath.Glob(d.file("*")); len(entries) != 1 {
		t.Errorf("files left: %v", entries)
	}
}

// TestEmptyMembers holds that an array.toml without content is called what it is.
func TestEmptyMembers(t *testing.T) {
	d := &dataDir{path: t.TempDir()}
	if err := os.WriteFile(d.file(memberFile), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.readMembers(); err == nil || !strings.Contains(err.Error(), "it is empty") {
		t.Error(err)
	}
}
