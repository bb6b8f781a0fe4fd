package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lsad/server/admin"
)

// TestImportKilled kills the server, or the command, by SIGKILL at random moments of an import. Then either the image is
// there as a whole or nothing is left; the same import works again, and all space comes back.
func TestImportKilled(t *testing.T) {
	raced(t, "TestImageVM")
	needTool(t, "nbdinfo", "cmp")
	rounds := 4
	if os.Getenv("LSAD_TEST") == "full" {
		rounds = 14
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	p := serveIn(t, dir, small...)
	mustSh(t, dir, "head -c 24M /dev/urandom > ram && head -c 100001 /dev/urandom > state")
	args := strings.Fields("image import vm ram --state state --with-volume vol0 --paused")
	began := time.Now()
	must(t, dir, args...)
	takes := time.Since(began)
	must(t, dir, "image", "delete", "vm")
	complete := 0
	for n := range rounds {
		cmd := exec.Command(lsadBinary, args...)
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.Int64N(int64(takes)))) // any moment will do
		when := "after the server was killed"
		if n%2 == 0 {
			p.kill()
			_ = cmd.Wait() // it says that the server has gone, or was done
			p = serveIn(t, dir, again...)
		} else {
			when = "after the command was killed"
			_ = cmd.Process.Kill() // it may be done
			_ = cmd.Wait()
			awaitImports(t, p)
		}
		if checkWhole(t, dir, when) {
			complete++
		}
		checkNothingLeft(t, dir, when)
		must(t, dir, args...)
		if !checkWhole(t, dir, "done again "+when) {
			t.Errorf("%s the import did not work again", when)
		}
		checkNothingLeft(t, dir, "in the end, "+when)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d of %d were complete", complete, rounds)
	p.stop()
	mustSh(t, dir, lsadBinary+" check")
}

// awaitImports waits until the server is at no import.
func awaitImports(t *testing.T, p *process) {
	t.Helper()
	for range 3000 {
		if strings.Contains(get(t, "http://"+p.status().Listen.HTTP[0]+"/metrics"), "\nlsad_image_imports_active 0\n") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("an import whose command is dead goes on")
}

// checkWhole says whether the image vm is there; then it is compared with what it was made of, and deleted.
func checkWhole(t *testing.T, dir, when string) bool {
	t.Helper()
	if len(mustJSON[[]admin.Image](t, dir, "image", "list")) == 0 {
		return false
	}
	must(t, dir, "image", "export", "vm", "out")
	must(t, dir, "image", "export", "vm", "--state", "state.out")
	if out, err := exec.Command("sh", "-c", "cd '"+dir+"' && cmp ram out && cmp state state.out").CombinedOutput(); err != nil {
		t.Errorf("%s the image is not whole: %s", when, out)
	}
	for _, name := range []string{"out", "state.out"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, dir, "image", "delete", "vm")
	return true
}
