package memsvc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"lsad/memsvc/qemu/qmp"
)

// pausedStates are those of QEMU's RunState (qapi/run-state.json) in which no vCPU runs, nor will by itself.
var pausedStates = []string{
	"paused", "postmigrate", "finish-migrate", "prelaunch", "save-vm", "shutdown", "io-error", "internal-error", "guest-panicked",
}

// QMPPause is a proof by QEMU's monitor that a VM is paused.
type QMPPause struct{ monitor *qmp.Client }

// DialQMP connects to the monitor at a unix socket, for as long as the proof is needed. QEMU serves one client of
// such a socket at a time.
func DialQMP(ctx context.Context, path string) (*QMPPause, error) {
	c, err := qmp.Dial(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return &QMPPause{c}, nil
}

// Check returns nil if the VM is paused, and has been since DialQMP.
func (p *QMPPause) Check(ctx context.Context) error {
	status, err := p.monitor.Status(ctx)
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("the VM is %w", ErrRunning), err)
	case !slices.Contains(pausedStates, status):
		return fmt.Errorf("the VM is %w: QEMU says %q; pause it with its command stop", ErrRunning, status)
	case p.monitor.Seen("RESUME", "WAKEUP"):
		return fmt.Errorf("the VM is %w: QEMU says that it ran meanwhile", ErrRunning)
	}
	return nil
}

// Owns returns nil if the file can be the RAM of the VM: that another VM is paused proves nothing. RAM without a path
// (memory-backend-memfd) cannot be compared, and may be it.
func (p *QMPPause) Owns(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	all, err := p.monitor.Backends(ctx)
	if err != nil {
		return fmt.Errorf("the VM is %w: %w", ErrRunning, err)
	}
	if len(all) == 0 {
		return nil // QEMU does not say
	}
	for _, b := range all {
		switch backend, err := os.Stat(b.File); {
		case b.Type == "memory-backend-file" && err == nil && !os.SameFile(info, backend), b.Type == "memory-backend-ram":
			continue // another file, or none
		case b.Type == "memory-backend-file" && b.Deleted:
			return fmt.Errorf("%w: the file of the VM's RAM was deleted while the VM used it, what is at %s now is another one; save the VM by lsad image ingest", ErrInvalid, f.Name())
		case b.Type == "memory-backend-file" && err == nil && !b.Share:
			return fmt.Errorf("%w: %s backs the VM's RAM without share=on, what the guest has is not in it; save the VM by lsad image ingest", ErrInvalid, f.Name())
		}
		return nil
	}
	return fmt.Errorf("the VM is %w: %s is not the RAM of the VM whose monitor this is (memory-backend-file,share=on, with an absolute path); for a file that nobody writes to give --paused", ErrRunning, f.Name())
}

// Close ends the connection.
func (p *QMPPause) Close() error { return p.monitor.Close() }
