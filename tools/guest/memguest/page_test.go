package memguest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a block of docs/MIGRATION.md that is marked as tested.
func block(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/MIGRATION.md")
	check(t, err)
	_, after, ok := strings.Cut(string(page), "<!-- tested: "+name+" -->\n```sh\n")
	text, _, ok2 := strings.Cut(after, "```")
	if !ok || !ok2 {
		t.Fatalf("the page has no block %q", name)
	}
	return text
}

// TestMigrationPage runs the page's commands, one block after the other, in one shell.
func TestMigrationPage(t *testing.T) {
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	s := serve(t)
	k, err := kit()
	check(t, err)
	dir := filepath.Dir(s.dir)
	check(t, os.Symlink(s.dir, filepath.Join(dir, "lsad-data")))
	program, err := lsad()
	check(t, err)
	t.Cleanup(func() { killAll(t, dir); os.Remove("/dev/shm/web3.ram") })
	vm := fmt.Sprintf("-accel tcg -cpu "+cpu+" -machine pc -m 512M -smp 1 -nodefaults -display none -no-reboot "+
		"-serial file:serial.log -kernel %s -initrd %s", k.Kernel, k.Initramfs)
	script := "set -e\nPATH='" + filepath.Dir(program) + "':$PATH\n" +
		"qemu-system-x86_64() { command qemu-system-x86_64 \"$@\" -append 'console=ttyS0 panic=-1 quiet mitigations=off no_timer_check used=24 freed=64'; }\n" +
		"VM=$VM_ARGS\n" +
		// What a user sees by himself: that the VM is up, and goes on.
		"rounds() { n=$(grep -c ^round serial.log || true); while [ $(grep -c ^round serial.log || true) -lt $((n + $1)) ]; do sleep 0.1; done; ! grep CORRUPT serial.log; }\n"
	for _, name := range []string{"start", "save", "restore", "migrate"} {
		text := block(t, name)
		if name == "migrate" {
			// Until the guest has started; the page has a time for people.
			text = "kill $(cat web2.pid)\nrm serial.log\n" + strings.Replace(text, "sleep 20\n", "touch serial.log; rounds 2\n", 1)
		}
		script += text
		if name != "save" {
			script += "rounds 3\n"
		}
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "VM_ARGS="+vm)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		serial, _ := os.ReadFile(filepath.Join(dir, "serial.log"))
		t.Logf("the guest's console: %s", serial[max(0, len(serial)-4000):])
		t.Fatal(err)
	}
	if strings.Contains(string(out), "not known:") {
		t.Error("the free pages were not found")
	}
}

// killAll ends the QEMUs whose process ids are in a directory.
func killAll(t *testing.T, dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, "*.pid")) // the pattern is good
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // QEMU removes its file
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	time.Sleep(100 * time.Millisecond) // for what they hold
}
