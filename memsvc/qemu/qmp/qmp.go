// Package qmp is a client of QEMU's machine protocol, as far as lsad needs it: commands one after the other, and
// events (docs/interop/qmp-spec.txt of QEMU).
//
// A Client owns its connection and belongs to one goroutine at a time. Nothing runs beside it: events are kept as
// they are met while a reply is awaited.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// ErrCommand: QEMU refused a command. The error says why in QEMU's words.
var ErrCommand = errors.New("refused by QEMU")

// ErrClosed: QEMU has closed the monitor, as it does when it ends.
var ErrClosed = errors.New("QEMU closed the monitor")

// Limits of what is read.
const (
	maxMessage = 8 << 20 // bytes
	maxEvents  = 1024
)

// Event is something that happened in QEMU.
type Event struct {
	Name string
	Data json.RawMessage
	Time time.Time // by QEMU's clock
}

// Client is a connection to a QEMU's monitor.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	begun  []byte // what came of a message whose end has not come yet
	events []Event
	nextID int
	// outOfBand: QEMU takes commands for which others do not have to have ended.
	outOfBand bool
}

// Dial connects to a monitor (-qmp unix:PATH,server=on,wait=off) and negotiates.
func Dial(ctx context.Context, network, address string) (*Client, error) {
	c, err := Connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := c.Negotiate(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Connect is the first half of Dial. It shows whether there is a QEMU, even one that is busy.
func Connect(ctx context.Context, network, address string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	return &Client{conn: conn, in: bufio.NewReader(conn)}, nil
}

// Negotiate is the second half of Dial, and goes before everything else.
func (c *Client) Negotiate(ctx context.Context) error {
	if err := c.greet(ctx); err != nil {
		return fmt.Errorf("QMP %s: %w", c.conn.RemoteAddr(), err)
	}
	return nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// message is anything that QEMU sends.
type message struct {
	QMP *struct {
		Capabilities []string `json:"capabilities"`
	} `json:"QMP"`
	ID     *int            `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	Time  struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// greetPatience is how long a monitor may take to greet, which it does at once.
const greetPatience = 10 * time.Second

// errBusy: QEMU greets in one thread and obeys in another.
var errBusy = errors.New("it greets and obeys no command: its QEMU waits, as for memory of a VM that has lost its source; a session that was open before can have it listen again (migrate-recover)")

func (c *Client) greet(ctx context.Context) error {
	// One monitor has one client: a second one waits for the first to leave, without a word.
	first, cancel := context.WithTimeoutCause(ctx, greetPatience, errors.New("no greeting: another program has this monitor open, or this is no QMP socket"))
	defer cancel()
	m, err := c.receive(first)
	var noJSON *json.SyntaxError // what the monitor for people greets with, and any other server
	switch {
	case errors.As(err, &noJSON):
		return fmt.Errorf("it does not greet as QMP does: is this a monitor with mode=control? %w", err)
	case err != nil:
		return err
	case m.QMP == nil:
		return errors.New("it does not greet as QMP does: is this a monitor with mode=control?")
	}
	ctx, cancel = context.WithTimeoutCause(ctx, greetPatience, errBusy)
	defer cancel()
	if !slices.Contains(m.QMP.Capabilities, "oob") {
		return c.Execute(ctx, "qmp_capabilities", nil, nil)
	}
	c.outOfBand = true
	return c.Execute(ctx, "qmp_capabilities", map[string]any{"enable": []string{"oob"}}, nil)
}

// Execute runs a command with arguments (nil for none) and decodes what it returns into result, unless that is nil.
func (c *Client) Execute(ctx context.Context, command string, arguments, result any) error {
	return c.execute(ctx, request{Execute: command, Arguments: arguments}, command, result)
}

// ExecuteNow runs one of the commands that QEMU obeys even while its main loop waits for something else, as it does
// for memory that does not come: migrate-recover and migrate-pause.
func (c *Client) ExecuteNow(ctx context.Context, command string, arguments, result any) error {
	if !c.outOfBand {
		return c.Execute(ctx, command, arguments, result)
	}
	return c.execute(ctx, request{ExecuteNow: command, Arguments: arguments}, command, result)
}

// request is a command as QEMU takes it.
type request struct {
	Execute    string `json:"execute,omitempty"`
	ExecuteNow string `json:"exec-oob,omitempty"`
	Arguments  any    `json:"arguments,omitempty"`
	ID         int    `json:"id"`
}

func (c *Client) execute(ctx context.Context, q request, command string, result any) error {
	c.nextID++
	id := c.nextID
	q.ID = id
	line, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	stop := c.interruptible(ctx)
	_, err = c.conn.Write(append(line, '\n'))
	stop()
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, cause(ctx, closed(err)))
	}
	for {
		m, err := c.receive(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("QMP %s: %w", command, err)
		case m.ID == nil || *m.ID != id:
			continue // the late reply to a command that was given up
		case m.Error != nil:
			return fmt.Errorf("QMP %s: %w: %s", command, ErrCommand, m.Error.Desc)
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(m.Return, result); err != nil {
			return fmt.Errorf("QMP %s: %w", command, err)
		}
		return nil
	}
}

// Wait returns the oldest event that match accepts, and forgets those before it.
func (c *Client) Wait(ctx context.Context, match func(Event) bool) (Event, error) {
	for {
		for i, e := range c.events {
			if match(e) {
				c.events = c.events[i+1:]
				return e, nil
			}
		}
		c.events = c.events[:0]
		if _, err := c.receive(ctx); err != nil {
			return Event{}, fmt.Errorf("QMP: wait for an event: %w", err)
		}
	}
}

// Newest is the newest event of a name among those that were met and not waited for.
func (c *Client) Newest(name string) (Event, bool) {
	for i := len(c.events) - 1; i >= 0; i-- {
		if c.events[i].Name == name {
			return c.events[i], true
		}
	}
	return Event{}, false
}

// Status is the run state of the VM: running, paused, postmigrate, inmigrate and others.
func (c *Client) Status(ctx context.Context) (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := c.Execute(ctx, "query-status", nil, &s)
	return s.Status, err
}
