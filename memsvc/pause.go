package memsvc

import (
	"context"
	"errors"
	"fmt"
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

// Close ends the connection.
func (p *QMPPause) Close() error { return p.monitor.Close() }
