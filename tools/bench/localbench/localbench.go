// Package localbench measures local disks: one volume through ublk and through the kernel's NBD client over a unix
// socket, and a null block device as the yardstick, all in one Linux guest with lsad running in it.
//
// The guest is emulated, and its clock counts the instructions that it executes, so that the figures do not depend on
// what else the host does. By themselves they mean nothing; the ratios say what the ways cost beside each other.
// Disks take turns in every round, and medians over the rounds are compared.
package localbench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lsad/tools/guest"
)

// disk is a way to have a block device.
type disk struct {
	name, dev string
	// attach and detach are scripts; "" for a device that is always there.
	attach, detach string
	kind           string // to attachtime; "" for a device that is always there
}

func disks(queues int) []disk {
	return []disk{
		{name: "null_blk", dev: "/dev/nullb0"},
		{
			name: "ublk", dev: "/dev/ublkb0",
			attach: fmt.Sprintf("lsad ublk add vol0 --queues %d >/dev/null", queues), detach: "lsad ublk del vol0 >/dev/null", kind: "ublk",
		},
		{
			name: "nbd", dev: "/dev/nbd0",
			attach: fmt.Sprintf(": >/run/attached; lsad attach vol0 /dev/nbd0 --connections %d >/run/attached 2>/run/attach.log & until [ -s /run/attached ]; do sleep 0.01; done", queues),
			detach: "lsad detach /dev/nbd0 >/dev/null", kind: "nbd",
		},
	}
}

// row is a kind of load.
type row struct{ name, fio string }

var rows = []row{
	{"4k random read, depth 32", "--rw=randread --bs=4k --iodepth=32"},
	{"4k random write, depth 32", "--rw=randwrite --bs=4k --iodepth=32"},
	{"4k random read, depth 1", "--rw=randread --bs=4k --iodepth=1"},
	{"4k random write, depth 1", "--rw=randwrite --bs=4k --iodepth=1"},
	{"1m sequential read, depth 4", "--rw=read --bs=1m --iodepth=4"},
	{"1m sequential write, depth 4", "--rw=write --bs=1m --iodepth=4"},
}

// Names of the rows that are measured by attaching: with a command, from its start on, and by a program that has
// started already.
const (
	firstIO   = "attach to first read, ms"
	firstIOIn = "the same without the command's start, ms"
)

// settings of a run.
type settings struct {
	rounds, seconds, cpus, queues int
	only                          string
	wall, json                    bool
}

// New is the command.
func New() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Compare ublk with the kernel's NBD client, in an emulated guest",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), cmd.OutOrStdout(), s) },
	}
	f := cmd.Flags()
	f.IntVar(&s.rounds, "rounds", 3, "how often each disk has its turn")
	f.IntVar(&s.seconds, "seconds", 1, "of each turn, by the guest's clock")
	f.BoolVar(&s.wall, "wall", false, "have the guest's clock go by the host's, instead of by instructions")
	f.IntVar(&s.cpus, "cpus", 2, "of the guest")
	f.IntVar(&s.queues, "queues", 1, "of the ublk device, and connections of the NBD device")
	f.StringVar(&s.only, "only", "", "measure only rows whose name has this in it")
	f.BoolVar(&s.json, "json", false, "print JSON")
	return cmd
}

func run(ctx context.Context, w io.Writer, s settings) error {
	dir, err := os.MkdirTemp("", "lsad-localbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	lsad := filepath.Join(dir, "lsad")
	if err := guest.BuildGo(ctx, "lsad/cmd/lsad", lsad); err != nil {
		return err
	}
	attachtime := filepath.Join(dir, "attachtime")
	if err := guest.BuildGo(ctx, "lsad/tools/bench/localbench/attachtime", attachtime); err != nil {
		return err
	}
	vm, err := guest.Boot(ctx, guest.Options{
		MemoryMiB: 3072, CPUs: s.cpus, CountInstructions: !s.wall,
		Modules: []string{"nbd nbds_max=1", "ublk_drv", "null_blk nr_devices=1 gb=1 queue_mode=2", "ext4"},
		Tools:   []string{"fio", "mkfs.ext4"},
		Files: map[string]string{
			"/usr/local/bin/lsad": lsad, "/usr/local/bin/attachtime": attachtime, "/etc/mke2fs.conf": "/etc/mke2fs.conf",
		},
		Disks: []guest.Disk{{Path: filepath.Join(dir, "disk"), Size: 4 << 30}},
	})
	if err != nil {
		return err
	}
	defer vm.Close()
	results, err := measure(ctx, vm, s)
	if err != nil {
		return err
	}
	if s.json {
		return json.NewEncoder(w).Encode(results)
	}
	return report(w, results)
}

// prepare starts a server with its array on a disk of the guest, all of which fits its page cache, and fills the
// part of the volume that is measured.
const prepare = `set -e
	mkfs.ext4 -q /dev/vda; mkdir -p /data; mount /dev/vda /data; cd /data
	lsad serve --device dev0:1GiB --device dev1:1GiB --volume vol0:256MiB --segment-size 8MiB --http none >/run/lsad.out 2>/run/lsad.log &
	until grep -q "lsad serves" /run/lsad.out; do sleep 0.1; done
	lsad ublk add vol0 >/dev/null; dd if=/dev/urandom of=/dev/ublkb0 bs=1M count=256 2>/dev/null; lsad ublk del vol0 >/dev/null`

// measure attaches and detaches each disk once a round, then attaches all and has them take turns in each row.
func measure(ctx context.Context, vm *guest.VM, s settings) ([]Result, error) {
	if _, err := script(ctx, vm, prepare); err != nil {
		return nil, err
	}
	values := map[[2]string][]float64{}
	for range s.rounds {
		for _, d := range disks(s.queues) {
			ms, err := attach(ctx, vm, d)
			if err != nil {
				return nil, err
			}
			values[[2]string{firstIO, d.name}] = append(values[[2]string{firstIO, d.name}], ms...)
			if err := detach(ctx, vm, d); err != nil {
				return nil, err
			}
			if ms, err = attachStarted(ctx, vm, d); err != nil {
				return nil, err
			}
			values[[2]string{firstIOIn, d.name}] = append(values[[2]string{firstIOIn, d.name}], ms...)
		}
	}
	for _, d := range disks(s.queues) {
		if _, err := attach(ctx, vm, d); err != nil {
			return nil, err
		}
	}
	for _, r := range rows {
		if !strings.Contains(r.name, s.only) {
			continue
		}
		for range s.rounds {
			for _, d := range disks(s.queues) {
				v, err := load(ctx, vm, d, r, s.seconds)
				if err != nil {
					return nil, err
				}
				values[[2]string{r.name, d.name}] = append(values[[2]string{r.name, d.name}], v)
			}
		}
	}
	return medians(values, s), nil
}

func rowNames() []string {
	names := []string{}
	for _, r := range rows {
		names = append(names, r.name)
	}
	return append(names, firstIO, firstIOIn)
}

// scriptBegin begins every script.
const scriptBegin = "set -e; cd /data\n"

// attach attaches a disk, and returns how many ms it took up to the end of the first read: one value, or none for a
// device that is always there.
func attach(ctx context.Context, vm *guest.VM, d disk) ([]float64, error) {
	if d.attach == "" {
		return nil, nil
	}
	out, err := script(ctx, vm, scriptBegin+"b=$(cut -d' ' -f1 /proc/uptime)\n"+d.attach+"\ndd if="+d.dev+` of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
		e=$(cut -d' ' -f1 /proc/uptime); echo "$b $e"`)
	if err != nil {
		return nil, err
	}
	var b, e float64
	if _, err := fmt.Sscan(out, &b, &e); err != nil {
		return nil, fmt.Errorf("times of %s: %q", d.name, out)
	}
	return []float64{(e - b) * 1000}, nil
}

// attachStarted is the same without the start of a command.
func attachStarted(ctx context.Context, vm *guest.VM, d disk) ([]float64, error) {
	if d.kind == "" {
		return nil, nil
	}
	out, err := script(ctx, vm, scriptBegin+"attachtime "+d.kind+" vol0")
	if err != nil {
		return nil, err
	}
	var there, read float64
	if _, err := fmt.Sscan(out, &there, &read); err != nil {
		return nil, fmt.Errorf("times of %s: %q", d.name, out)
	}
	return []float64{read}, nil
}

func detach(ctx context.Context, vm *guest.VM, d disk) error {
	if d.detach == "" {
		return nil
	}
	_, err := script(ctx, vm, scriptBegin+d.detach)
	return err
}

// load measures one row on one disk.
func load(ctx context.Context, vm *guest.VM, d disk, r row, seconds int) (float64, error) {
	out, err := script(ctx, vm, fmt.Sprintf(`%s fio --name=x --filename=%s --direct=1 --ioengine=libaio --size=256m --time_based --runtime=%d \
		--norandommap --randrepeat=0 %s --output-format=json`, scriptBegin, d.dev, seconds, r.fio))
	if err != nil {
		return 0, err
	}
	return iops(out)
}

// iops reads fio's output.
func iops(out string) (float64, error) {
	var report struct {
		Jobs []struct {
			Read, Write struct{ IOPS float64 }
		}
	}
	if err := json.Unmarshal([]byte(out[max(0, strings.IndexByte(out, '{')):]), &report); err != nil || len(report.Jobs) != 1 {
		return 0, fmt.Errorf("fio's output: %v: %.200q", err, out)
	}
	return report.Jobs[0].Read.IOPS + report.Jobs[0].Write.IOPS, nil
}

func script(ctx context.Context, vm *guest.VM, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	out, err := vm.Run(ctx, text)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("status %d: %s", out.Code, out.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("in the guest: %w\n%s", err, text)
	}
	return out.Stdout, nil
}
