package guest

import (
	"fmt"
	"os"
)

// HostIP is the address at which the guest finds the host's loopback
// interface: a server on 127.0.0.1:P of the host is HostIP:P to the guest.
const HostIP = "10.0.2.2"

// Defaults of Options.
const (
	defaultMemoryMiB = 512
	defaultCPUs      = 1
	defaultMachine   = "pc"
	defaultCPU       = "max"
)

// Options say what a guest has.
type Options struct {
	MemoryMiB int // 0 means 512; the initramfs with all its files is part of it
	CPUs      int // 0 means 1

	// CountInstructions has the guest's clock go by the instructions that it
	// executes, 4 ns each, instead of the host's: what it measures then hardly
	// depends on what else the host does. It is slower.
	CountInstructions bool

	Kernel  string // series of the kernel: "" means DefaultSeries; "6.1" is the other
	Append  string // more for the kernel's command line
	Machine string // QEMU's machine type, "" means "pc"; with properties: "q35,smm=off"
	CPU     string // QEMU's CPU model, "" means "max"

	// MemoryFile is a file that holds the guest's RAM while it runs, shared, made
	// anew. Its RAM block is named "mem0". "" means memory of the process.
	MemoryFile string

	// Modules are loaded when the guest starts, with what they need. Each is a
	// name, then parameters if any: "nbd nbds_max=4". Modules that are built in
	// may be named, without effect.
	Modules []string

	// Tools are programs of the host, found on its PATH or in the sbin
	// directories, which the guest finds under the same names. They go before
	// busybox's.
	Tools []string

	// Files are further files: path in the guest to path on the host.
	// Programs among them get their shared libraries.
	Files map[string]string

	// System makes the guest a whole Debian with systemd instead of an initramfs:
	// the first disk holds it, from [CopySystem]. Files are copied to it at each
	// boot, and Tools are not for it. Scripts can run before it has started all
	// that it is to start.
	System bool

	Env   []string // environment of every script, NAME=VALUE
	Disks []Disk   // /dev/vda, /dev/vdb and so on
	QEMU  []string // more of QEMU's arguments
}

// A Disk is a raw file on the host that the guest has as a virtio-blk device
// with a write cache and discard.
type Disk struct {
	Path string
	Size int64 // bytes; if not 0 the file is made, sparse, unless it is there
}

func (o Options) withDefaults() Options {
	if o.MemoryMiB == 0 {
		o.MemoryMiB = defaultMemoryMiB
	}
	if o.CPUs == 0 {
		o.CPUs = defaultCPUs
	}
	if o.Kernel == "" {
		o.Kernel = DefaultSeries
	}
	if o.Machine == "" {
		o.Machine = defaultMachine
	}
	if o.CPU == "" {
		o.CPU = defaultCPU
	}
	return o
}

// create makes the disk's file if it is to be made.
func (d Disk) create() error {
	if d.Size == 0 {
		return nil
	}
	f, err := os.OpenFile(d.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("guest disk: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(d.Size); err != nil {
		return fmt.Errorf("guest disk %s: %w", d.Path, err)
	}
	return nil
}
