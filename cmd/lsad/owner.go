package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lsad/memsvc/qemu"
	"lsad/server/admin"
)

// ownerError is the failure of a command that moves a VM. It knows who has that, for the exit code.
type ownerError struct {
	owner qemu.Owner
	err   error
}

func (e *ownerError) Error() string { return e.err.Error() }
func (e *ownerError) Unwrap() error { return e.err }

// exitCodeOf is the exit code of a failure.
func exitCodeOf(err error) int {
	var o *ownerError
	if errors.As(err, &o) && o.owner == qemu.Destination {
		return exitDestination
	}
	return exitFailed
}

// failedMove says who has the VM after a failure: in JSON, if that is wanted, and by the error that it returns.
func (t *target) failedMove(cmd *cobra.Command, owner qemu.Owner, err error) error {
	if t.json {
		text := struct {
			Owner qemu.Owner `json:"owner"`
			Error string     `json:"error"`
		}{owner, err.Error()}
		err = errors.Join(err, printJSON(cmd, text))
	}
	return &ownerError{owner, err}
}

// exitCodes is the part of a command's help that says who has the VM when it has ended.
const exitCodes = `

Exit codes: 0, done. 1, it failed and the VM is not at the destination. 2, it was called wrongly. 3, it failed and
the VM is at the destination, or may be. With --json a failure is an object with owner and error.`

// steps shows the progress of a restore, and a line for each change of it, which says who has the VM. It notes the owner,
// and whether the VM has run there.
func steps(out io.Writer, bar *bar, at *qemu.Progress) func(admin.JobProgress) {
	step := ""
	return func(p admin.JobProgress) {
		if p.Owner != "" {
			at.Owner, at.Ran = qemu.Owner(p.Owner), p.Ran
		}
		if p.Step != step {
			step = p.Step
			bar.end()
			fmt.Fprintf(out, "%s: the VM is at the %s\n", step, orElse(p.Owner, string(qemu.Source))) // for people
		}
		bar.show(p)
	}
}
