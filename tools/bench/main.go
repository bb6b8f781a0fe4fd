// Command bench measures lsad: beside other NBD servers, its memory, its
// recovery, and where its time goes.
//
//	go run ./tools/bench nbd        lsad beside nbdkit, qemu-nbd and go-nbd's server
//	go run ./tools/bench mem        saving the memory of a VM, beside cp and QEMU
//	go run ./tools/bench mem move   how long a VM stands still when it is moved
//	go run ./tools/bench gc         what clients notice of garbage collection
//	go run ./tools/bench memory     resident memory with a large volume written all over
//	go run ./tools/bench hook       the page server beside a bare handler
//	go run ./tools/bench local      ublk beside the kernel's NBD client, in an emulated guest
//	go run ./tools/bench recovery   time to serve again after kill -9
//	go run ./tools/bench profile    CPU profile of lsad during one row of "nbd"
//
// Every server runs on a unix socket in a temporary directory, is ended by its
// own process id whatever happens, and leaves nothing behind. fio's nbd engine
// is the client. docs/BENCHMARKS.md says how to read the figures.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/kvmhook/vmmtest"
	"lsad/tools/bench/localbench"
)

func main() {
	vmmtest.Main() // if this process is to be the VMM of "hook"
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err := newRoot().ExecuteContext(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Measure lsad, beside other servers and by itself",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newNBD(), newMem(), newHookBench(), newMemory(), newRecovery(), newProfile(), localbench.New())
	root.AddCommand(newGC())
	root.AddCommand(newWA())
	return root
}
