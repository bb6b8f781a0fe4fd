package memsvc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"lsad/memsvc/qemu/qmp"
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

// TestQMPOwns holds that a monitor proves something of its own VM's RAM alone.
func TestQMPOwns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ram")
	for _, name := range []string{"ram", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const file, ram, memfd = "memory-backend-file", "memory-backend-ram", "memory-backend-memfd"
	for name, test := range map[string]struct {
		backends []qmp.Backend
		want     error
	}{
		"its file":            {[]qmp.Backend{{Type: ram}, {Type: file, File: path, Share: true}}, nil},
		"its private file":    {[]qmp.Backend{{Type: file, File: path}}, ErrInvalid},
		"another's file":      {[]qmp.Backend{{Type: file, File: filepath.Join(dir, "other"), Share: true}}, ErrRunning},
		"no file at all":      {[]qmp.Backend{{Type: ram}}, ErrRunning},
		"a memfd":             {[]qmp.Backend{{Type: ram}, {Type: memfd}}, nil},
		"a file out of sight": {[]qmp.Backend{{Type: file, File: "/nothing/here"}}, nil},
		"no word":             {nil, nil},
	} {
		p, err := DialQMP(t.Context(), backendsMonitor(t, test.backends))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Owns(t.Context(), f); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
		p.Close()
	}
}

// backendsMonitor is a monitor that knows of memory backends only.
func backendsMonitor(t *testing.T, all []qmp.Backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		enc := json.NewEncoder(c)
		fmt.Fprintln(c, `{"QMP": {"capabilities": []}}`)
		for scan := bufio.NewScanner(c); scan.Scan(); {
			var q struct {
				Execute   string
				ID        int
				Arguments struct{ Path, Property string }
			}
			json.Unmarshal(scan.Bytes(), &q)
			answer := map[string]any{"id": q.ID, "return": struct{}{}}
			var n int
			switch _, _ = fmt.Sscanf(q.Arguments.Path, "/objects/m%d", &n); q.Execute + q.Arguments.Property {
			case "query-memdev":
				list := []map[string]any{}
				for i, b := range all {
					list = append(list, map[string]any{"id": fmt.Sprintf("m%d", i), "share": b.Share})
				}
				answer["return"] = list
			case "qom-gettype":
				answer["return"] = all[n].Type
			case "qom-getmem-path":
				if answer["return"] = all[n].File; all[n].File == "" {
					answer = map[string]any{"id": q.ID, "error": map[string]string{"desc": "no such property"}}
				}
			}
			enc.Encode(answer)
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
