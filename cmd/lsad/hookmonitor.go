package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"lsad/kvmhook"
)

// hookMonitor serves the status, from before there is a hook.
type hookMonitor struct {
	status  atomic.Pointer[func() kvmhook.Status]
	cancel  context.CancelFunc
	serving sync.WaitGroup
	err     error // of serving
}

func (k *hook) monitor(ctx context.Context, gid int, kept bool) (*hookMonitor, error) {
	l, err := k.sockets.listen(ctx, "status socket", k.socket+hookStatusSuffix, gid)
	if err != nil {
		return nil, err
	}
	m := &hookMonitor{}
	began := time.Now()
	m.watch(func() kvmhook.Status {
		st := kvmhook.Status{State: kvmhook.StateOpening, Kept: kept, Source: kvmhook.SourceStatus{Name: k.image}}
		st.Source.OutageSeconds = time.Since(began).Seconds()
		return st
	})
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.serving.Go(func() {
		m.err = kvmhook.Monitor(ctx, l, func() kvmhook.Status { return (*m.status.Load())() })
	})
	return m, nil
}

// watch has another status shown from now on.
func (m *hookMonitor) watch(status func() kvmhook.Status) { m.status.Store(&status) }

func (m *hookMonitor) end() error {
	m.cancel()
	m.serving.Wait()
	return m.err
}
