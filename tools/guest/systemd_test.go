package guest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lsad/tools/guest"
)

// TestSystemd does in a guest with systemd what the documentation says of a service, of local disks and of fstab, word
// for word. Both file systems are written while the server is restarted and killed; then the guest reboots, which
// must end by itself, and finds all of it again.
func TestSystemd(t *testing.T) {
	if os.Getenv("LSAD_TEST") != "full" {
		t.Skip("boots an emulated machine: set LSAD_TEST=full to run it")
	}
	o := systemOptions(t)
	vm, started := startSystem(t, o)
	vm.MustRun(t, "cd /root/lsad; depmod 2>/dev/null\n"+tested(t, "OPERATING.md", "systemd"))
	if who := vm.MustRun(t, "stat -c %U /var/lib/lsad/dev0; systemctl show -P User lsad"); who != "lsad\nlsad\n" {
		t.Errorf("the server runs as, and its files belong to, %q", who)
	}
	vm.MustRun(t, "cd /root/lsad\n"+tested(t, "OPERATING.md", "boot ublk"))
	vm.MustRun(t, "cd /root/lsad\n"+tested(t, "OPERATING.md", "boot nbd"))
	vm.MustRun(t, mountScript(t))
	writers := systemWriters(t, vm)
	vm.MustRun(t, progress+"progress; systemctl restart lsad; progress; progress")
	vm.MustRun(t, progress+"systemctl kill --kill-who=main -s KILL lsad; progress; progress; [ $(systemctl show -P NRestarts lsad) -ge 1 ]")
	vm.MustRun(t, "touch /run/enough")
	for _, job := range writers {
		if out, err := job.Wait(t.Context()); err != nil || out.Code != 0 {
			t.Fatalf("a writer: status %d, %v: %s", out.Code, err, out.Stderr)
		}
	}
	vm.MustRun(t, verifyTrees)
	shutdown(t, vm, started, "reboot")

	vm, started = startSystem(t, o)
	got := vm.MustRun(t, `findmnt -n -o SOURCE /srv/db; findmnt -n -o SOURCE /srv/web; systemctl --failed --no-legend
		lsad status --dir /var/lib/lsad | sed -n 's/^Last start: *\([^,]*\),.*/\1/p'; dmesg | grep -c -E 'EXT4-fs .*(recover|error)' || true`)
	if want := "/dev/ublkb0\n/dev/nbd0\nafter a clean stop\n0\n"; got != want {
		t.Errorf("after a reboot: %q, want %q", got, want)
	}
	vm.MustRun(t, verifyTrees)
	shutdown(t, vm, started, "poweroff")
}

// systemOptions is a guest with systemd, the program and packaging/.
func systemOptions(t *testing.T) guest.Options {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "system")
	err := guest.CopySystem(t.Context(), disk)
	var k *guest.Kernel
	if err == nil {
		k, err = guest.Prepare(t.Context(), guest.DefaultSeries)
	}
	if errors.Is(err, guest.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	o := guest.Options{
		MemoryMiB: 1536, CPUs: 2, System: true, Modules: []string{"ext4"},
		// An emulated machine on a busy host may take longer for its disks than the 90 s after which systemd gives up.
		Append: "systemd.default_timeout_start_sec=600 systemd.default_device_timeout_sec=600",
		Files: map[string]string{
			"/root/lsad/bin/lsad":     build(t, "lsad/cmd/lsad"),
			"/usr/local/bin/filetree": buildTool(t, "filetree"),
		},
		Disks: []guest.Disk{{Path: disk}},
	}
	packaging, err := filepath.Glob("../../packaging/*[a-z]")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range packaging {
		o.Files["/root/lsad/packaging/"+filepath.Base(path)] = path
	}
	// modprobe wants the drivers that units load, where it looks for them.
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order", "kernel/drivers/block/nbd.ko", "kernel/drivers/block/ublk_drv.ko"} {
		if path := filepath.Join(k.Modules, name); exists(path) {
			o.Files[filepath.Join("/lib/modules", k.Release, name)] = path
		}
	}
	return o
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// startSystem boots and waits until everything was started that is to be. It says how long that took.
func startSystem(t *testing.T, o guest.Options) (*guest.VM, time.Duration) {
	t.Helper()
	began := time.Now()
	vm := guest.Start(t, o)
	state := vm.MustRun(t, `for i in $(seq 900); do
			s=$(systemctl is-system-running || true)
			if [ "$s" = running ] || [ "$s" = degraded ]; then break; fi
			sleep 0.2
		done; echo $s; cat /proc/uptime`)
	took := time.Since(began)
	t.Logf("after %.0f s: %s", took.Seconds(), strings.Join(strings.Fields(state), " "))
	if !strings.HasPrefix(state, "running") {
		t.Errorf("the system is %s", vm.MustRun(t, "systemctl list-jobs; systemctl --failed; journalctl --no-pager -b | tail -100"))
	}
	return vm, took
}

// tested is a block of commands of the documentation.
func tested(t *testing.T, file, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", file))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "<!-- tested: "+name+" -->\n```")
	_, block, ok2 := strings.Cut(after, "\n")
	block, _, ok3 := strings.Cut(block, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("docs/%s has no block %q", file, name)
	}
	return block
}

// mountScript puts the documented lines into fstab, with the UUIDs of the guest, and mounts.
func mountScript(t *testing.T) string {
	t.Helper()
	lines := tested(t, "OPERATING.md", "boot fstab")
	for dir, device := range map[string]string{"/srv/db": "/dev/ublkb0", "/srv/web": "/dev/nbd0"} {
		line := regexp.MustCompile(`(?m)^UUID=\S+( +` + dir + ` )`)
		if !line.MatchString(lines) {
			t.Fatalf("docs/OPERATING.md has no line of fstab for %s", dir)
		}
		lines = line.ReplaceAllString(lines, "UUID=$(blkid -o value -s UUID "+device+")$1")
	}
	return "cat >>/etc/fstab <<END\n" + lines + "END\nudevadm settle; systemctl daemon-reload; mkdir /srv/db /srv/web; mount /srv/db; mount /srv/web"
}

// systemWriters start to write trees to both file systems, each synced, until told that it is enough.
func systemWriters(t *testing.T, vm *guest.VM) (jobs []*guest.Job) {
	t.Helper()
	for _, dir := range []string{"/srv/db", "/srv/web"} {
		job, err := vm.Go(`set -e; i=0
			until [ -e /run/enough ]; do
				i=$((i+1)); mkdir `+dir+`/$i; filetree write `+dir+`/$i $i 20; sync -f `+dir+`; echo $i >`+dir+`/count
				sleep 0.2
			done`, nil)
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// progress defines a shell function that waits until both have synced one more tree.
const progress = `
	progress() {
		for dir in /srv/db /srv/web; do
			was=$(cat $dir/count 2>/dev/null || echo 0)
			for i in $(seq 1200); do
				[ "$(cat $dir/count 2>/dev/null || echo 0)" = "$was" ] || break
				sleep 0.1
			done
			[ "$(cat $dir/count)" != "$was" ]
		done
	}
`

// verifyTrees reads what was written back from the disks.
const verifyTrees = `echo 3 >/proc/sys/vm/drop_caches
	for dir in /srv/db /srv/web; do
		for i in $(seq $(cat $dir/count)); do filetree verify $dir/$i $i 20; done
	done`

// shutdown has the guest shut down by itself, which takes less time than it took to start: where that was long, the host
// is busy.
func shutdown(t *testing.T, vm *guest.VM, started time.Duration, how string) {
	t.Helper()
	began := time.Now()
	if _, err := vm.Go("systemctl "+how, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), max(2*time.Minute, 5*started), errors.New("it hangs"))
	defer cancel()
	if err := vm.WaitOff(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s took %.1f s", how, time.Since(began).Seconds())
	if c := vm.Console(); !strings.Contains(c, "reboot: ") || strings.Contains(c, "I/O error") {
		t.Errorf("the console has no orderly end:\n%s", c)
	}
}
