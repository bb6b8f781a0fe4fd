package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"lsad/memsvc/qemu/qmp"
)

// handoverPatience is how long QEMU may take for a step that takes milliseconds.
const handoverPatience = 30 * time.Second

// handover takes a VM from its QEMU, and gives it back. Its monitor obeys to the end of a step even if what asked
// for it was cancelled: a step half done would leave a VM that nobody knows about.
type handover struct {
	monitor   *qmp.Client
	restore   []capability // to put back
	bandwidth int64        // limit to put back, in bytes per second; 0: it was not changed
	left      bool         // migrate was asked for
	paused    bool         // it was not running before
	stopped   time.Time    // when the VM stopped, by the source's clock
}

type capability struct {
	Name string `json:"capability"`
	On   bool   `json:"state"`
}

// unshared are the capabilities that a source must have, and must not have, for its RAM to stay where it is.
var unshared = []capability{
	{ignoreShared, true}, {"events", true},
	{"postcopy-ram", false}, {"multifd", false}, {"xbzrle", false}, {"compress", false}, {"background-snapshot", false},
	{"x-colo", false}, {"return-path", false},
}

func (h *handover) run(ctx context.Context, command string, arguments, result any) error {
	ctx, cancel := patient(ctx)
	defer cancel()
	return h.monitor.Execute(ctx, command, arguments, result)
}

func patient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), handoverPatience, errors.New("QEMU does not answer"))
}

func (h *handover) status(ctx context.Context) (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := h.run(ctx, "query-status", nil, &s)
	return s.Status, err
}

// backend finds the memory backend whose file is f, and checks that it is shared.
func (h *handover) backend(ctx context.Context, f os.FileInfo) (name string, err error) {
	ctx, cancel := patient(ctx)
	defer cancel()
	all, err := h.monitor.Backends(ctx)
	if err != nil {
		return "", err
	}
	for _, b := range all {
		if info, err := os.Stat(b.File); err != nil || !os.SameFile(info, f) {
			continue
		}
		if b.Deleted {
			return "", unsupported("the memory backend %q, whose file was deleted while the VM used it: what is at %s now is another file", b.ID, b.File)
		}
		if !b.Share {
			return "", unsupported("the memory backend %q without share=on: its file is not what the guest has", b.ID)
		}
		return b.ID, nil
	}
	return "", unsupported("a VM whose RAM is not this file: start QEMU with -object memory-backend-file,id=mem0,mem-path=FILE,size=SIZE,share=on, FILE an absolute path, and -machine TYPE,memory-backend=mem0")
}

// setCapabilities changes what has to be and remembers what was.
func (h *handover) setCapabilities(ctx context.Context, wanted []capability) error {
	var now []capability
	if err := h.run(ctx, "query-migrate-capabilities", nil, &now); err != nil {
		return err
	}
	is := map[string]bool{}
	for _, c := range now {
		is[c.Name] = c.On
	}
	var change []capability
	wanted = slices.Clone(wanted)
	// What must be off goes first: x-ignore-shared excludes some.
	slices.SortStableFunc(wanted, func(a, b capability) int { return cmp.Compare(rank(a), rank(b)) })
	for _, w := range wanted {
		if on, known := is[w.Name]; known && on != w.On {
			change = append(change, w)
			h.restore = append(h.restore, capability{w.Name, on})
		}
	}
	if len(change) == 0 {
		return nil
	}
	return h.run(ctx, "migrate-set-capabilities", map[string]any{"capabilities": change}, nil)
}

// rank orders changes of capabilities.
func rank(c capability) int {
	if c.On {
		return 1
	}
	return 0
}

// take has the source send the VM's state to a listener, whose address for QEMU is uri. The VM has stopped then; see
// completed.
func (h *handover) take(ctx context.Context, l net.Listener, uri string, ram pageSink) (*State, error) {
	h.left = true
	if err := h.run(ctx, "migrate", map[string]string{"uri": uri}, nil); err != nil {
		return nil, err
	}
	conn, err := h.accept(ctx, l)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	p := &parser{r: newReader(conn, 1<<20), pages: ram, reply: conn}
	if err := p.parse(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return &p.state, nil
}

func (h *handover) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handoverPatience, errors.New("the source does not connect"))
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.Accept()
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var m migration
	if h.run(context.WithoutCancel(ctx), "query-migrate", nil, &m) == nil && m.Error != "" {
		return nil, fmt.Errorf("%w: %s", err, m.Error)
	}
	return nil, err
}

type migration struct {
	Status string `json:"status"`
	Error  string `json:"error-desc"`
}

// completed waits until the source says that it is done with the VM, and does not run it. It notes when that stopped.
func (h *handover) completed(ctx context.Context) error {
	for deadline := time.Now().Add(handoverPatience); ; time.Sleep(200 * time.Microsecond) {
		var m migration
		if err := h.run(ctx, "query-migrate", nil, &m); err != nil {
			return err
		}
		status := ""
		if m.Status == "completed" {
			var err error
			if status, err = h.status(ctx); err != nil {
				return err
			}
		}
		switch {
		case status == "postmigrate":
			if e, ok := h.monitor.Newest("STOP"); ok {
				h.stopped = e.Time
			}
			return nil
		case status != "" && status != "finish-migrate": // which it is for a moment yet
			return fmt.Errorf("the source is %s instead of postmigrate", status)
		case m.Status == "failed" || m.Status == "cancelled" || m.Status == "none":
			return fmt.Errorf("%w: the source's migration is %s %s", ErrLost, m.Status, m.Error)
		case time.Now().After(deadline):
			return fmt.Errorf("the source's migration is still %s after %v", m.Status, handoverPatience)
		}
	}
}

// giveBack has the source run the VM again, as it was.
func (h *handover) giveBack(ctx context.Context) error {
	err := h.resume(ctx)
	if errors.Is(err, qmp.ErrClosed) {
		return err // there is nobody to see to
	}
	if err != nil {
		return fmt.Errorf("the source does NOT run the VM again, see to it there (query-status, then cont): %w", err)
	}
	return h.putBack(ctx)
}

// putBack gives QEMU its settings back.
func (h *handover) putBack(ctx context.Context) error {
	var errs []error
	if len(h.restore) > 0 {
		errs = append(errs, h.run(ctx, "migrate-set-capabilities", map[string]any{"capabilities": h.restore}, nil))
	}
	if h.bandwidth > 0 {
		errs = append(errs, h.run(ctx, "migrate-set-parameters", map[string]any{maxBandwidth: h.bandwidth}, nil))
	}
	return errors.Join(errs...)
}

// maxBandwidth is the parameter that limits what a source sends, in bytes per second.
const maxBandwidth = "max-bandwidth"

// unlimited has the source send as fast as it can: its own limit is for lines that others share.
func (h *handover) unlimited(ctx context.Context) error {
	var is struct {
		Bandwidth int64 `json:"max-bandwidth"`
	}
	if err := h.run(ctx, "query-migrate-parameters", nil, &is); err != nil {
		return err
	}
	h.bandwidth = is.Bandwidth
	return h.run(ctx, "migrate-set-parameters", map[string]any{maxBandwidth: int64(1) << 40}, nil)
}

func (h *handover) resume(ctx context.Context) error {
	if !h.left {
		return nil
	}
	if err := h.settle(ctx); err != nil {
		return err
	}
	if h.paused {
		return nil
	}
	// cont does nothing to a VM that runs.
	if err := h.run(ctx, "cont", nil, nil); err != nil {
		return err
	}
	status, err := h.status(ctx)
	if err == nil && status != "running" {
		err = fmt.Errorf("it is %s", status)
	}
	return err
}

// settle ends a migration that may be under way.
func (h *handover) settle(ctx context.Context) error {
	for deadline := time.Now().Add(handoverPatience); ; time.Sleep(time.Millisecond) {
		var m migration
		if err := h.run(ctx, "query-migrate", nil, &m); err != nil {
			return err
		}
		switch m.Status {
		case "", "none", "completed", "failed", "cancelled":
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("its migration stays %s", m.Status)
		}
		if err := h.run(ctx, "migrate_cancel", nil, nil); err != nil {
			return err
		}
	}
}
