// Package guest boots a small Linux 6.12 machine under QEMU's software
// emulation, so that tests can use the kernel drivers that the machine they
// run on does not have: nbd, ublk_drv, null_blk, the device-mapper targets,
// ext4 and xfs.
//
// # How it works
//
// [Prepare] finds Debian's "cloud" build of a kernel, 6.12 or 6.1, with apt-cache,
// fetches it with apt-get download and unpacks it into a cache directory
// ($LSAD_GUEST_CACHE, else .cache/guest beside go.mod), once, under a file
// lock. Nothing is installed and root is not needed. The kernel is kept as an
// uncompressed ELF file that QEMU enters directly (PVH boot): emulated
// decompression would cost two of the five seconds that a boot then takes.
//
// [Boot] writes an initramfs into a temporary directory: busybox, the modules
// asked for with what they depend on, the host's own programs with the shared
// libraries that ldd names, any further files, and a small static Go program,
// tools/guest/agent, as /init. The agent mounts the kernel's file systems,
// loads the modules, sets up the network and then runs shell scripts for the
// host. They speak package wire over a virtio-serial port that QEMU connects
// to a unix socket of the test.
//
// The guest reaches a TCP server on the host's loopback interface at [HostIP];
// nothing else can be reached, neither from nor into the guest.
//
// # A whole system
//
// With [Options.System] the guest does not stay in the initramfs: the agent
// mounts its first disk, a Debian with systemd that [CopySystem] made with
// debootstrap, and becomes its init; the agent proper is then a service that
// starts early and ends last. [VM.WaitOff] waits for a guest that shuts down by
// itself. Such a boot takes fifteen seconds or more.
//
// # Disks and power loss
//
// A [Disk] is a raw file that outlives the guest. [VM.PowerOff] kills the
// emulator: what the guest's kernel had not written to its disks is lost, as
// in a power cut. What it had written to them is kept, flushed or not, since the
// file is in the page cache of a host that goes on running: a disk that loses
// unflushed writes has to be made inside the guest (dm-flakey, dm-log-writes).
//
// # When it cannot run
//
// If QEMU, busybox, a program or the kernel package cannot be had, the error
// wraps [ErrUnavailable] and [Start] skips the test with the reason. Whatever
// fails after that is a failure. The console of a guest is kept (the last
// MiB of it) and is printed when its test has failed.
//
// The tests of this directory take two to three minutes when two cores are idle
// and several times that on a busy machine: go test wants -timeout 30m. They test
// lsad; -args -server=nbdkit or -server=qemu-nbd puts another server in its
// place, to tell a fault of lsad from one of the tests.
//
// # Ownership
//
// A [VM] owns the QEMU process, the socket's listener, the temporary directory
// and two goroutines, one that keeps the console and one that reads what the
// agent says; [VM.Close] ends all of them. VM.mu guards the table of running
// jobs, Job.mu a job's output; VM.mu is taken first.
package guest
