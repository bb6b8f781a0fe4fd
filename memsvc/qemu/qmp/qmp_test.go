package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve is a monitor that greets, and answers with what reply makes of each line.
func serve(t *testing.T, greeting string, reply func(execute string, oob bool, id int) string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintln(conn, greeting)
		for scan := bufio.NewScanner(conn); scan.Scan(); {
			var q request
			if json.Unmarshal(scan.Bytes(), &q) != nil {
				return
			}
			if answer := reply(q.Execute+q.ExecuteNow, q.ExecuteNow != "", q.ID); answer != "" {
				fmt.Fprintln(conn, answer)
			}
		}
	}()
	return path
}

const greeting = `{"QMP": {"version": {}, "capabilities": ["oob"]}}`

func ok(_ string, _ bool, id int) string { return fmt.Sprintf(`{"return": {}, "id": %d}`, id) }

func TestExecute(t *testing.T) {
	path := serve(t, greeting, func(execute string, oob bool, id int) string {
		switch execute {
		case "query-status":
			return `{"event": "STOP", "timestamp": {"seconds": 5, "microseconds": 7}}
{"return": {}, "id": 999}
` + fmt.Sprintf(`{"return": {"status": "paused"}, "id": %d}`, id)
		case "bad":
			return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "it is bad"}, "id": %d}`, id)
		case "migrate-recover":
			return fmt.Sprintf(`{"return": %v, "id": %d}`, oob, id)
		}
		return ok(execute, oob, id)
	})
	c, err := Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if status, err := c.Status(t.Context()); status != "paused" || err != nil {
		t.Errorf("status %q, %v", status, err)
	}
	if e, found := c.Newest("STOP"); !found || !e.Time.Equal(time.Unix(5, 7000)) || !c.Seen("STOP") || c.Seen("RESUME") {
		t.Errorf("the event: %+v, %v", e, found)
	}
	if e, err := c.Wait(t.Context(), func(e Event) bool { return e.Name == "STOP" }); err != nil || e.Name != "STOP" || c.Seen("STOP") {
		t.Errorf("waiting for it: %+v, %v", e, err)
	}
	if err := c.Execute(t.Context(), "bad", nil, nil); !errors.Is(err, ErrCommand) || !strings.Contains(err.Error(), "it is bad") {
		t.Errorf("a refusal: %v", err)
	}
	var now bool
	if err := c.ExecuteNow(t.Context(), "migrate-recover", nil, &now); err != nil || !now {
		t.Errorf("out of band: %v, %v", now, err)
	}
}

// TestClosed holds that the end of QEMU is told from other failures, whether it shows when a command is sent or when the
// reply is awaited.
func TestClosed(t *testing.T) {
	path := serve(t, greeting, ok)
	c, err := Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.conn.Write([]byte("no JSON\n")); err != nil { // has this monitor hang up
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Execute(t.Context(), "query-status", nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	silent, err := Dial(t.Context(), "unix", serve(t, greeting, func(execute string, oob bool, id int) string {
		if execute == "query-status" {
			return ""
		}
		return ok(execute, oob, id)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := silent.Execute(ctx, "query-status", nil, nil); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("of one that is silent: %v", err)
	}
}

// TestGivenUp holds that a command that was given up does not end the connection, and that its answer is not taken for
// that of the next one.
func TestGivenUp(t *testing.T) {
	slow := 0
	c, err := Dial(t.Context(), "unix", serve(t, greeting, func(execute string, oob bool, id int) string {
		switch execute {
		case "query-status":
			slow = id
			return ""
		case "migrate-recover":
			return fmt.Sprintf(`{"return": {"status": "inmigrate"}, "id": %d}`+"\n"+`{"return": {"status": "running"}, "id": %d}`, slow, id)
		}
		return ok(execute, oob, id)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	var now struct{ Status string }
	if err := c.ExecuteNow(t.Context(), "migrate-recover", nil, &now); err != nil || now.Status != "running" {
		t.Errorf("%+v, %v", now, err)
	}
}

func TestDialFails(t *testing.T) {
	silent := func(string, bool, int) string { return "" }
	for name, test := range map[string]struct {
		greeting string
		reply    func(string, bool, int) string
		text     string
	}{
		"not QMP":     {"QEMU 7.2.22 monitor - type 'help' for more information", ok, "mode=control? invalid character"},
		"no greeting": {`{"return": {}}`, ok, "does not greet"},
		"silence":     {greeting, silent, "deadline"},
		"too long":    {strings.Repeat("x", maxMessage+1), ok, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if name != "silence" {
				ctx = t.Context()
			}
			_, err := Dial(ctx, "unix", serve(t, test.greeting, test.reply))
			if err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %q", err, test.text)
			}
		})
	}
}
