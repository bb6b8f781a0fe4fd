package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lsad/memsvc/qemu/qmp"
)

// savable are the capabilities that a source of Ingest must not have.
var savable = []capability{
	{ignoreShared, false}, {"postcopy-ram", false}, {"multifd", false}, {"xbzrle", false}, {"compress", false},
	{"background-snapshot", false}, {"x-colo", false}, {"return-path", false},
}

// Sending is a VM whose QEMU was asked to send it to an Ingest. Either Finish or GiveBack ends it.
type Sending struct {
	// Emulated says that QEMU has no KVM for the VM, which was stopped before anything was sent, therefore: QEMU loses
	// some of the writes that an emulated VM does meanwhile (docs/decisions/0406).
	Emulated bool

	h handover
}

// Send has QEMU migrate its VM to uri ("unix:PATH", "tcp:HOST:PORT").
func Send(ctx context.Context, monitor *qmp.Client, uri string) (*Sending, error) {
	s := &Sending{h: handover{monitor: monitor}}
	status, err := s.h.status(ctx)
	if err != nil {
		return nil, err
	}
	s.h.paused = status != "running"
	if err := s.h.setCapabilities(ctx, savable); err != nil {
		return nil, err
	}
	s.h.left = true
	if err := s.begin(ctx, uri); err != nil {
		return nil, fmt.Errorf("%w%s", err, also(s.GiveBack(ctx)))
	}
	return s, nil
}

func (s *Sending) begin(ctx context.Context, uri string) error {
	var kvm struct {
		Enabled bool `json:"enabled"`
	}
	if err := s.h.run(ctx, "query-kvm", nil, &kvm); err != nil {
		return err
	}
	if s.Emulated = !kvm.Enabled; s.Emulated && !s.h.paused {
		if err := s.h.run(ctx, "stop", nil, nil); err != nil {
			return err
		}
	}
	if err := s.h.unlimited(ctx); err != nil {
		return err
	}
	return s.h.run(ctx, "migrate", map[string]string{"uri": uri}, nil)
}

// Finish waits until QEMU is done with the VM, which is stopped then, and puts QEMU's settings back.
func (s *Sending) Finish(ctx context.Context) error {
	if err := s.h.completed(ctx); err != nil {
		return err
	}
	return s.h.putBack(ctx)
}

// GiveBack has QEMU run the VM on, if it did before, and puts its settings back.
func (s *Sending) GiveBack(ctx context.Context) error { return s.h.giveBack(ctx) }

func also(err error) string {
	if err == nil {
		return ""
	}
	return "; and " + err.Error()
}

// Receiver is a QEMU that waits for a VM (-incoming defer), by its monitor.
type Receiver struct {
	monitor *qmp.Client
	uri     string
}

// Receive has QEMU wait for a VM at uri, by post-copy.
func Receive(ctx context.Context, monitor *qmp.Client, uri string) (*Receiver, error) {
	h := handover{monitor: monitor}
	want := []capability{{"postcopy-ram", true}, {ignoreShared, false}, {"multifd", false}, {"postcopy-preempt", false}, {"compress", false}}
	if err := h.setCapabilities(ctx, want); err != nil {
		return nil, err
	}
	return &Receiver{monitor, uri}, h.run(ctx, "migrate-incoming", map[string]string{"uri": uri}, nil)
}

// Found is the Receiver of a VM that runs, and has lost its source.
func Found(monitor *qmp.Client, uri string) *Receiver { return &Receiver{monitor, uri} }

// Runs waits until QEMU has a VM of its own: until it no longer waits for a migration. While it reads the state of devices
// it does not answer.
func (r *Receiver) Runs(ctx context.Context) error {
	for {
		status, err := r.monitor.Status(ctx)
		if err != nil || status != "inmigrate" {
			return err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Recover has QEMU listen again after the connection was lost. It fails as long as QEMU has not noticed that, with
// ErrComplete if nothing is lacking, and with ErrEnded if there is no QEMU any more.
func (r *Receiver) Recover(ctx context.Context) error {
	err := r.recover(ctx)
	if errors.Is(err, qmp.ErrCommand) && r.complete(ctx) {
		err = fmt.Errorf("%w: %w", ErrComplete, err)
	}
	if errors.Is(err, qmp.ErrClosed) {
		return fmt.Errorf("%w: %w", ErrEnded, err)
	}
	return err
}

// complete says whether QEMU knows that its VM has come as a whole. One that waits for memory does not answer.
func (r *Receiver) complete(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var m migration
	return r.monitor.Execute(ctx, "query-migrate", nil, &m) == nil && m.Status == "completed"
}

func (r *Receiver) recover(ctx context.Context) error {
	return r.monitor.ExecuteNow(ctx, "migrate-recover", map[string]string{"uri": r.uri}, nil)
}
