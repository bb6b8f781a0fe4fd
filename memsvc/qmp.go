package memsvc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// QMP is a connection to QEMU's monitor that proves that a VM is paused, and stayed so.
type QMP struct {
	conn net.Conn
	dec  *json.Decoder
}

// qmpMessage is any message of QEMU's (docs/interop/qmp-spec): a greeting, an answer or an event.
type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Event  string          `json:"event"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

const (
	qmpTimeout  = 10 * time.Second // for one answer
	qmpMaxBytes = 16 << 20         // that are read of one connection
)

// pausedStates are those of RunState (qapi/run-state.json) in which no vCPU runs, nor will without a command or a
// migration's end.
var pausedStates = []string{"paused", "postmigrate", "prelaunch", "save-vm", "finish-migrate", "shutdown", "io-error", "internal-error", "guest-panicked"}

// DialQMP connects to the monitor at a unix socket. QEMU serves one client of such a socket at a time.
func DialQMP(ctx context.Context, path string) (*QMP, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	q := &QMP{conn: conn, dec: json.NewDecoder(io.LimitReader(conn, qmpMaxBytes))}
	if err := q.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("QMP at %s: %w", path, err), conn.Close())
	}
	return q, nil
}

func (q *QMP) greet(ctx context.Context) error {
	m, err := q.next(ctx)
	if err != nil {
		return err
	}
	if m.QMP == nil {
		return fmt.Errorf("%w: no greeting; is it QEMU's monitor in control mode (-qmp)?", ErrInvalid)
	}
	_, err = q.call(ctx, "qmp_capabilities")
	return err
}

func (q *QMP) next(ctx context.Context) (m qmpMessage, err error) {
	deadline, ok := ctx.Deadline()
	if soon := time.Now().Add(qmpTimeout); !ok || soon.Before(deadline) {
		deadline = soon
	}
	if err := q.conn.SetDeadline(deadline); err != nil {
		return m, err
	}
	stop := context.AfterFunc(ctx, func() { _ = q.conn.SetDeadline(time.Unix(1, 0)) }) // it fails if the connection did
	defer stop()
	if err := q.dec.Decode(&m); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the monitor hung up: %w", err)
		}
		return m, fmt.Errorf("no answer: %w; it serves one client at a time", err)
	}
	return m, nil
}

// errResumed: the VM ran in between.
var errResumed = fmt.Errorf("%w: QEMU says that it resumed the VM meanwhile", ErrRunning)

// call executes a command without arguments. Events that say that the VM runs again fail it.
func (q *QMP) call(ctx context.Context, command string) (json.RawMessage, error) {
	text, err := json.Marshal(map[string]string{"execute": command})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(text, '\n')); err != nil {
		return nil, err
	}
	for {
		m, err := q.next(ctx)
		switch {
		case err != nil:
			return nil, err
		case m.Error != nil:
			return nil, fmt.Errorf("%s: %s", command, m.Error.Desc)
		case m.Event == "RESUME" || m.Event == "WAKEUP":
			return nil, errResumed
		case m.Return != nil:
			return m.Return, nil
		}
	}
}

// Paused returns nil if the VM is paused, and was since the connection was made.
func (q *QMP) Paused(ctx context.Context) error {
	raw, err := q.call(ctx, "query-status")
	if err != nil {
		return fmt.Errorf("QMP: %w", err)
	}
	var st struct {
		Running bool   `json:"running"`
		Status  string `json:"status"`
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return fmt.Errorf("QMP: query-status: %w", err)
	}
	if st.Running || !slices.Contains(pausedStates, st.Status) {
		return fmt.Errorf("the VM is %w: QEMU says %q; pause it with the command stop", ErrRunning, st.Status)
	}
	return nil
}

// Close ends the connection.
func (q *QMP) Close() error { return q.conn.Close() }
