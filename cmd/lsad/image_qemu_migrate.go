package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lsad/internal/config"
	"lsad/kvmhook/guestmem"
	"lsad/memsvc"
	"lsad/memsvc/qemu"
	"lsad/memsvc/qemu/qmp"
	"lsad/server/admin"
)

// migration is what the command line says.
type migration struct {
	ram, monitor, from, layout string
	to, toMonitor              string
	keepFree, resume           bool
	met                        bool // the source's monitor has answered
	rate, page                 sizeFlag
	patience                   time.Duration
}

func imageMigrate(t *target) *cobra.Command {
	m := &migration{}
	cmd := &cobra.Command{
		Use:   "migrate --ram FILE --qmp SOCKET --to ADDR",
		Short: "Move a running VM of QEMU whose RAM is a shared file, by post-copy",
		Long: `Move a running VM to a QEMU that waits for it on another host. Its RAM has to be a file here
(-object memory-backend-file,...,share=on); nothing of it is copied. The VM stops for as long as its device state
takes, some milliseconds whatever its size, and runs on at the destination, which gets the memory that it
touches first and the rest in the background. Pages that the guest's kernel has free are not sent.

The destination is started with the same arguments, its memory backend of the same name, and -incoming defer; then
migrate-set-capabilities postcopy-ram on, and migrate-incoming ADDR. No server is needed.

The command says at every moment who has the VM. Until it runs at the destination every failure, and Ctrl-C,
has the source run on. After that the source must not run again, nor end, before this command is done: the
memory is there. If the connection is lost the VM waits: have the destination listen again (migrate-recover), and
this command finds it; if the command was ended, run it again with --resume.` + exitCodes,
		Example: `  lsad image migrate --ram /dev/shm/web1.ram --qmp /run/web1.qmp --to 10.0.0.7:4444
  lsad image migrate --ram /dev/shm/web1.ram --qmp /run/web1.qmp --to 10.0.0.7:4444 --resume`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, f := range []struct{ name, value string }{{"ram", m.ram}, {"qmp", m.monitor}, {"to", m.to + m.toMonitor}} {
				if f.value == "" {
					return config.Usagef("--%s is missing: %s", f.name, cmd.UseLine())
				}
			}
			if err := absoluteBoth(&m.to, &m.toMonitor); err != nil {
				return err
			}
			r, err := m.run(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return t.failedMove(cmd, r.Owner, fmt.Errorf("%w; %s", err, m.whereIs(r.Progress, err)))
			}
			return t.printMigrated(cmd, r)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&m.ram, "ram", "", "`FILE` that is the VM's RAM")
	fs.StringVar(&m.monitor, "qmp", "", "`SOCKET` of the VM's monitor")
	fs.StringVar(&m.from, "state-from", "", "`ADDR` at which to take the device state; default: a unix socket in a directory for temporary files")
	fs.StringVar(&m.to, "to", "", "`ADDR` where the destination waits, unix:PATH or HOST:PORT")
	fs.StringVar(&m.toMonitor, "to-qmp", "", "`SOCKET` of the destination's monitor, if that is on this machine: it is told to listen")
	fs.StringVar(&m.layout, "layout", "auto", "where the file's RAM is in the guest, as for lsad image import")
	fs.BoolVar(&m.keepFree, "keep-free", false, "send the pages that the guest has free, too")
	fs.BoolVar(&m.resume, "resume", false, "the VM runs there already and has lost the rest of its memory")
	sendingFlags(cmd, &m.rate, &m.page, &m.patience)
	return cmd
}

// whereIs tells who has the VM after a failure, and what to do.
func (m *migration) whereIs(p qemu.Progress, err error) string {
	again := fmt.Sprintf("its memory is still in %s: %s", m.ram, againText(m.toMonitor, "run this command with --resume"))
	switch {
	case errors.Is(err, qemu.ErrSourceEnded):
		return "it had not handed the VM over, and its monitor has closed: see that it has ended, then start the VM again from its disks. The destination has not got it"
	case errors.Is(err, qemu.ErrComplete):
		return hasAll
	case p.Owner == qemu.Nobody && p.Ran:
		return "what the VM has done since it stopped at the source is lost; the source still has it as it was then, and cont in its monitor takes that back, if nothing was written to the disks since"
	case p.Owner == qemu.Nobody:
		return "it had not shown that it runs the VM, its own log says why; the source still has the VM, stopped: cont in its monitor takes it back"
	case p.Owner != qemu.Destination && !m.met:
		return "nothing was done to the VM"
	case p.Owner != qemu.Destination:
		return "the VM is at the source"
	case !p.Ran:
		return "the VM has been handed to the destination, which has not shown that it runs: if you have made sure that its QEMU has ended, cont in the source's monitor takes the VM back; if not, it must not run here again, " + again
	}
	return "the VM has been handed to the destination and must not run here again, " + again
}

func (m *migration) run(ctx context.Context, out io.Writer) (result qemu.Migrated, err error) {
	result.Owner = qemu.Source
	if m.resume {
		result.Owner, result.Ran = qemu.Destination, true
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	file, err := os.Open(m.ram)
	if err != nil {
		return result, err
	}
	defer file.Close() // it was only read
	monitor, err := qmp.Dial(ctx, "unix", m.monitor)
	if err != nil {
		return result, err
	}
	defer monitor.Close()
	m.met = true
	to, err := connect(ctx, m.to, m.toMonitor, m.resume)
	if err != nil {
		return result, err
	}
	defer to.close()
	o := qemu.MigrateOptions{
		RAM: file, Monitor: monitor, Dial: to.dial, Runs: to.runs(), Resume: m.resume, Rate: m.rate.bytes(), HugePage: m.page.bytes(),
		Patience: m.patience, FreePages: m.freePages(file),
	}
	if !m.resume {
		end, err := m.listen(ctx, &o)
		if err != nil {
			return result, err
		}
		defer end()
	}
	bar := newBar(out)
	defer bar.end()
	o.Progress = owners(out, bar, orElse(m.to, m.toMonitor))
	raisePriority()
	result, err = qemu.Migrate(ctx, o)
	to.leave(ctx, result.Progress, err)
	return result, err
}

// listen opens the socket that takes the device state.
func (m *migration) listen(ctx context.Context, o *qemu.MigrateOptions) (end func(), err error) {
	end = func() {}
	from := m.from
	if from == "" {
		dir, err := os.MkdirTemp("", "lsad-migrate-")
		if err != nil {
			return nil, err
		}
		end = func() { os.RemoveAll(dir) }
		from = "unix:" + filepath.Join(dir, "state")
	}
	if from, err = absolute(from); err != nil {
		return nil, err
	}
	a, err := config.ParseAddr(from)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(ctx, a, false); err != nil {
		return nil, err
	}
	o.Listener, err = listen(ctx, "state-from", a, -1)
	o.URI = qemuURI(a)
	if err != nil {
		end()
	}
	return end, err
}

// freePages finds the free pages of the guest in its RAM's file.
func (m *migration) freePages(file *os.File) func(context.Context, func(off, n int64)) error {
	if m.keepFree {
		return nil
	}
	return func(ctx context.Context, free func(off, n int64)) error {
		guestmem.LowerThread(walkNice)
		ctx = guestmem.Gently(ctx, walkNice)
		src, err := memsvc.OpenSource(file, m.layout)
		if err != nil {
			return err
		}
		found := false
		report, err := memsvc.FindFree(ctx, src, func(off, n int64) {
			found = true
			free(off, n)
		})
		if err == nil && !found {
			err = errors.New(report.Why)
		}
		return err
	}
}

// owners shows progress, and a line for each change of who has the VM.
func owners(out io.Writer, bar *bar, to string) func(qemu.Progress) {
	phase := qemu.Phase("")
	return func(p qemu.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			bar.end()
			fmt.Fprintf(out, "%s: the VM is at the %s%s\n", phase, p.Owner, more(phase, to)) // for people
		}
		bar.show(admin.JobProgress{Step: string(p.Phase), DoneBytes: p.SentPages * qemu.PageSize, TotalBytes: p.TotalPages * qemu.PageSize})
	}
}

// more is what people should know of a phase beside its name.
func more(p qemu.Phase, to string) string {
	switch p {
	case qemu.Interrupted:
		return "; waiting until it has begun to run there, 10 seconds at most: ending before would end it"
	case qemu.Paused:
		return "; " + lostText(to)
	}
	return ""
}
