package memsvc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"
)

// monitor answers as QEMU's does: query-status with the next of states, after the events in it.
func monitor(t *testing.T, states ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintln(c, `{"QMP": {"version": {}, "capabilities": []}}`)
		for scan := bufio.NewScanner(c); scan.Scan(); {
			var q struct {
				Execute string
				ID      int
			}
			json.Unmarshal(scan.Bytes(), &q)
			answer := "{}"
			if q.Execute == "query-status" {
				if states[0] == "resumed" {
					fmt.Fprintln(c, `{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}`)
					states[0] = "paused"
				}
				answer = fmt.Sprintf(`{"running": %v, "status": %q}`, states[0] == "running", states[0])
				states = states[1:]
			}
			fmt.Fprintf(c, `{"return": %s, "id": %d}`+"\n", answer, q.ID)
		}
	}()
	return path
}

func TestQMPPause(t *testing.T) {
	for _, test := range []struct {
		states []string
		proven int // how often
	}{
		{[]string{"paused", "paused"}, 2},
		{[]string{"postmigrate", "paused"}, 2},
		{[]string{"running"}, 0},
		{[]string{"inmigrate"}, 0},
		{[]string{"suspended"}, 0},
		{[]string{"paused", "running"}, 1},
		{[]string{"paused", "resumed"}, 1},
	} {
		p, err := DialQMP(t.Context(), monitor(t, test.states...))
		if err != nil {
			t.Fatal(err)
		}
		for n := range test.proven {
			if err := p.Check(t.Context()); err != nil {
				t.Errorf("%v, question %d: %v", test.states, n+1, err)
			}
		}
		if test.proven < len(test.states) {
			if err := p.Check(t.Context()); !errors.Is(err, ErrRunning) {
				t.Errorf("%v, question %d: %v", test.states, test.proven+1, err)
			}
		}
		p.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DialQMP(ctx, filepath.Join(t.TempDir(), "nobody")); err == nil {
		t.Error("a monitor that is not there")
	}
}
