package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lsad/memsvc/qemu"
	"lsad/server/admin"
)

func (t *target) printMigrated(cmd *cobra.Command, r qemu.Migrated) error {
	if t.json {
		return printJSON(cmd, migratedOf(r))
	}
	out := newTable(cmd.OutOrStdout())
	out.row("The VM:", "is at the "+string(r.Owner)+", which has all of its memory; QEMU can be ended here (quit)")
	if s := r.Stood; s.Loaded > 0 {
		out.row("Stood still:", tenths(s.Loaded))
		out.row("  of that:", tenths(s.Saved)+" until the source had sent its device state")
		out.row("", tenths(s.Sent-s.Saved)+" to pass that on")
		out.row("", tenths(s.Confirmed-s.Sent)+" until the source had said that it will not run again")
		out.row("", tenths(s.Loaded-s.Confirmed)+" until the destination had loaded it")
	}
	out.row("Took:", r.Took.Round(time.Millisecond).String())
	out.row("Sent:", fmt.Sprintf("%s; %d pages with data, %d free or zero", size(r.Bytes), r.DataPages, r.ZeroPages))
	free := fmt.Sprintf("%d pages", r.Elided)
	if r.ElideError != nil {
		free = "not known: " + r.ElideError.Error()
	}
	out.row("Free:", free)
	out.row("Asked for:", fmt.Sprintf("%d times", r.Demanded))
	out.row("Connection lost:", fmt.Sprintf("%d times", r.Losses))
	return out.flush()
}

// tenths is a short time for people.
func tenths(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// migrated is the JSON of a migration.
type migrated struct {
	admin.Restored
	DownSeconds float64    `json:"down_seconds"` // that the VM stood still; 0 if it is not known
	Stood       standstill `json:"stood"`
	FreePages   int64      `json:"free_pages"` // in the guest
	FreeProblem string     `json:"free_problem,omitempty"`
}

// standstill is what had happened so many seconds after the VM's stop; see qemu.Standstill.
type standstill struct {
	Saved     float64 `json:"saved_seconds"`
	Sent      float64 `json:"sent_seconds"`
	Confirmed float64 `json:"confirmed_seconds"`
	Loaded    float64 `json:"loaded_seconds"`
	Asked     float64 `json:"asked_seconds"`
}

func migratedOf(r qemu.Migrated) migrated {
	s := r.Stood
	m := migrated{
		Restored: restoredOf(r.Progress), DownSeconds: s.Loaded.Seconds(), FreePages: r.Elided,
		Stood: standstill{s.Saved.Seconds(), s.Sent.Seconds(), s.Confirmed.Seconds(), s.Loaded.Seconds(), s.Asked.Seconds()},
	}
	if r.ElideError != nil {
		m.FreeProblem = r.ElideError.Error()
	}
	return m
}
