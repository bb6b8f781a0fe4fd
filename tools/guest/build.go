package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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
