package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHookSecondSignal holds that a hook that is ended at once leaves no socket, and does not promise what a server does.
func TestHookSecondSignal(t *testing.T) {
	k := &hook{}
	var paths []string
	for _, name := range []string{"s", "s.status"} {
		path := filepath.Join(t.TempDir(), name)
		l, err := k.sockets.listen(t.Context(), "socket", path, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		paths = append(paths, path)
	}
	var said bytes.Buffer
	asked, ended := make(chan struct{}), make(chan int)
	c := cutHook(k)
	c.exit = func(code int) { ended <- code }
	defer c.onSignals(slog.New(slog.NewTextHandler(&said, nil)), func() { close(asked) })()
	term := func() {
		if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	term()
	<-asked
	term() // of the group that it belongs to
	select {
	case <-ended:
		t.Error("one signal that came twice was taken for two")
	case <-time.After(sameSignal + 50*time.Millisecond):
	}
	term()
	if code := <-ended; code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if strings.Contains(said.String(), "acknowledged") || !strings.Contains(said.String(), "next missing page") {
		t.Error(said.String())
	}
}
