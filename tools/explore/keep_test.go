//go:build lsad_planted

package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lsad/lsa"
	"lsad/tools/explore/crash"
)

// The state on which a violation was seen is written as it was before it was opened.
func TestViolationIsKept(t *testing.T) {
	defer lsa.Plant("")
	lsa.Plant("cut-at-gap")
	dir := t.TempDir()
	s := crash.Search{Config: crash.Config{Keep: dir}, Seed: rand.Uint64() >> 16, Time: 5 * time.Minute, Workers: 2}
	r := s.Run(context.Background())
	if len(r.Violations) == 0 || !strings.Contains(r.Violations[0].Error(), dir) {
		t.Fatalf("nothing noticed, or nothing said: %v", r.Violations)
	}
	for _, name := range []string{"*/dev[0-9]", "*/meta/MANIFEST-*", "*/story.txt"} {
		if found, _ := filepath.Glob(filepath.Join(dir, name)); len(found) == 0 {
			t.Errorf("there is no %s", name)
		}
	}
	stories, _ := filepath.Glob(filepath.Join(dir, "*/story.txt"))
	story, err := os.ReadFile(stories[0])
	if err != nil || !strings.Contains(string(story), "a copy, during") || !strings.Contains(string(story), "write of device") || !strings.Contains(string(story), "recovery: replay") {
		t.Errorf("%v: the story is %.2000s", err, story)
	}
}
