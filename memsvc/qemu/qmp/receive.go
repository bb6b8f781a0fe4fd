package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// receive reads one message. Events are kept and returned.
func (c *Client) receive(ctx context.Context) (message, error) {
	var m message
	stop := c.interruptible(ctx)
	defer stop()
	line, err := c.line()
	if err != nil {
		return m, cause(ctx, closed(err))
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, err
	}
	if m.Event != "" && len(c.events) < maxEvents {
		t := time.Unix(m.Time.Seconds, m.Time.Microseconds*1000)
		c.events = append(c.events, Event{m.Event, m.Data, t})
	}
	return m, nil
}

// line reads one message. If it fails before that has come as a whole, the next call goes on there.
func (c *Client) line() ([]byte, error) {
	for {
		part, err := c.in.ReadSlice('\n')
		c.begun = append(c.begun, part...)
		switch {
		case len(c.begun) > maxMessage:
			return nil, bufio.ErrTooLong
		case err == nil:
			line := c.begun
			c.begun = nil
			return line, nil
		case errors.Is(err, io.EOF):
			return nil, ErrClosed
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// interruptible lets ctx end reads and writes until the function that it returns is called. What comes after is not
// ended by it: the answer to a command that was given up comes too late, and is passed over.
func (c *Client) interruptible(ctx context.Context) (stop func()) {
	c.conn.SetDeadline(time.Time{})
	done := make(chan struct{})
	end := context.AfterFunc(ctx, func() {
		defer close(done)
		c.conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !end() {
			<-done
		}
	}
}

// closed tells a connection whose other end is gone from other failures.
func closed(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
