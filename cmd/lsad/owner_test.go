package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/spf13/cobra"

	"lsad/memsvc/qemu"
)

// TestOwnerInExit holds that the exit code and the JSON of a failure say who has the VM.
func TestOwnerInExit(t *testing.T) {
	for owner, code := range map[qemu.Owner]int{qemu.Source: exitFailed, qemu.Destination: exitDestination, qemu.Nobody: exitFailed} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		err := (&target{json: true}).failedMove(cmd, owner, errors.New("broken"))
		if got := exitCodeOf(fmt.Errorf("wrapped: %w", err)); got != code {
			t.Errorf("%s: exit code %d", owner, got)
		}
		var said struct{ Owner, Error string }
		if json.Unmarshal(out.Bytes(), &said) != nil || said.Owner != string(owner) || said.Error != "broken" || err.Error() != "broken" {
			t.Errorf("%s: %s, %v", owner, &out, err)
		}
	}
	if exitCodeOf(errors.New("else")) != exitFailed {
		t.Error("any other failure")
	}
}
