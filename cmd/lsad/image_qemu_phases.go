package main

import (
	"errors"
	"sync/atomic"

	"lsad/memsvc"
	"lsad/memsvc/qemu"
	"lsad/server/admin"
)

// hasAll is said of a destination that is asked to resume a VM which lacks nothing.
const hasAll = "if this is its monitor, the VM is there as a whole, and there is nothing to resume"

// restoredTo tells who has the VM after a failed restore, and what to do.
func restoredTo(p qemu.Progress, name string, q admin.RestoreImage, err error) string {
	again := againText(q.QMP, "run lsad image restore "+name+" again, with --resume")
	switch {
	case errors.Is(err, qemu.ErrComplete):
		return hasAll
	case p.Owner == qemu.Nobody && !p.Ran:
		return "it had not shown that it runs the VM, its own log says why; the image is as it was: restore it again"
	case p.Owner == qemu.Nobody:
		return "what it has done since it was resumed is lost; the image is as it was: restore it again"
	case p.Owner != qemu.Destination:
		return "the VM does not run at the destination"
	case !p.Ran:
		return "the VM has been handed to the destination, which has not shown that it runs: if its QEMU has ended restore the image again, if not " + again
	}
	return "the VM has been handed to the destination, which needs the rest of its memory from here: " + again
}

// perhapsAt says what to do where the server has ended and nothing was heard of the destination.
func perhapsAt(name string, q admin.RestoreImage) string {
	return "it is not known whether the destination has the VM: if its QEMU has ended, restore the image again; if query-status in its monitor says inmigrate, end it before that; if it says something else, or nothing, " +
		againText(q.QMP, "run lsad image restore "+name+" again, with --resume")
}

// againText says what to do with a destination that lacks memory. With its monitor, run sees to it that it listens.
func againText(monitor, run string) string {
	if monitor != "" {
		return run
	}
	return "have it listen again (migrate-recover), then " + run
}

// phases shows the progress of a VM's way to its destination at to, and notes how far that was last.
func phases(show *memsvc.Progress, to string, last *atomic.Pointer[qemu.Progress]) func(qemu.Progress) {
	step, done := "", int64(0)
	return func(p qemu.Progress) {
		total := p.TotalPages * qemu.PageSize
		last.Store(&p)
		if text := phaseText(p, to); text != step {
			step, done = text, 0
			show.Begin(step, total)
		}
		show.Add(p.SentPages*qemu.PageSize - done)
		done = p.SentPages * qemu.PageSize
	}
}

// lastHeard adds to the progress of a job who had its VM last, if that is known.
func lastHeard(p admin.JobProgress, last *qemu.Progress) admin.JobProgress {
	if last != nil {
		p.Owner, p.Ran = string(last.Owner), last.Ran
	}
	return p
}

func phaseText(p qemu.Progress, to string) string {
	switch p.Phase {
	case qemu.Running:
		return "runs at the destination, which gets its memory"
	case qemu.Interrupted:
		return "interrupted: waiting until the destination has begun to run the VM, 10 seconds at most; ending before would end it there"
	case qemu.Paused:
		return lostText(to)
	case qemu.Resuming:
		return "the destination is back"
	}
	return string(p.Phase)
}

// lostText says what is waited for when a destination was lost, and how to end that.
func lostText(to string) string {
	return "the connection to the destination is lost, and the VM waits there; waiting until it listens at " + to + " again (migrate-recover). If its QEMU has ended, Ctrl-C ends this"
}
