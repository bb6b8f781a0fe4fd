package qemu

import "time"

// Phase of a VM's way to its destination.
type Phase string

// The phases, in order. After Running, Paused and Resuming may alternate with it.
const (
	Connecting Phase = "connecting"
	Preparing  Phase = "preparing" // the destination is told about the VM; it can still refuse
	Running    Phase = "running"   // it was told to run
	Paused     Phase = "paused"    // the connection is lost: what the VM has not, it waits for
	Resuming   Phase = "resuming"
	Complete   Phase = "complete" // the destination has every page

	// Interrupted is instead of Running when what drives the migration has been told to end, and may not before the
	// destination has shown that it runs: the connection's end would end QEMU there.
	Interrupted Phase = "interrupted"
)

// Owner says who has the VM.
type Owner string

// The owners. While all QEMUs live, between what is stored and what runs there is no moment without owner or with two.
const (
	Source      Owner = "source"
	Destination Owner = "destination"
	// Nobody: the destination's QEMU has ended, and the VM that was handed to it; or the source's has, before that
	// (ErrSourceEnded).
	Nobody Owner = "nobody"
)

// Progress of a restore or a migration.
type Progress struct {
	Phase Phase
	Owner Owner

	TotalPages int64
	SentPages  int64 // that the destination has or is being sent
	DataPages  int64 // sent with data, lost ones included
	ZeroPages  int64 // sent as zeros
	Bytes      int64 // of the stream
	Demanded   int64 // requests for pages
	Losses     int   // of the connection
	// Ran says that the destination has shown that it runs the VM. Until then it may have failed to load the device state.
	Ran bool

	// ToRun is the time from the beginning to the destination's word that it has everything that it needs to run.
	ToRun time.Duration
	Took  time.Duration
}
