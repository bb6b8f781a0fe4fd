package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// BuildGo builds a main package of this module, named by its import path, as a
// static program at path out, for [Options.Files]. The settings are those of "make
// build": others would have everything compiled once more.
func BuildGo(ctx context.Context, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, msg)
	}
	return nil
}

// agent returns the program that is /init in every guest. It is built once in a process: linking it takes a second, and
// tests start twenty guests.
var agent = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lsad-guest-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "agent")
	// Not the context of the guest that comes first: others want it too.
	if err := BuildGo(context.Background(), "lsad/tools/guest/agent", bin); err != nil {
		return "", err
	}
	raw, err := os.ReadFile(bin)
	return string(raw), err
})
