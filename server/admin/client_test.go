package admin

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestLate holds that who asks a server that hangs is told so, once, and goes on waiting.
func TestLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it was only a stage
	late := make(chan string, 2)
	c := NewClient("unix", path, "")
	c.LateAfter, c.Late = time.Millisecond, func(where string) { late <- where }
	asked := make(chan error)
	go func() {
		_, err := c.Volumes(t.Context())
		asked <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := <-late; got != "unix:"+path {
		t.Errorf("it says that %q is late", got)
	}
	select {
	case err := <-asked:
		t.Errorf("it gave up: %v", err)
	default:
	}
	conn.Close()
	if err := <-asked; err == nil {
		t.Error("a server that said nothing has answered")
	}
	if len(late) != 0 {
		t.Error("it was said twice")
	}
}
