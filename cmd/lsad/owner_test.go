package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spf13/cobra"

	"lsad/memsvc"
	"lsad/memsvc/qemu"
	"lsad/server/admin"
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

// TestLastHeard holds that what a restore has said last is what its end goes by when the server is killed: whether the
// VM has run at the destination above all.
func TestLastHeard(t *testing.T) {
	for _, ran := range []bool{false, true} {
		var last atomic.Pointer[qemu.Progress]
		phases(&memsvc.Progress{}, "unix:/there", &last)(qemu.Progress{Phase: qemu.Running, Owner: qemu.Destination, Ran: ran})
		at := qemu.Progress{Owner: qemu.Source}
		steps(io.Discard, newBar(io.Discard), &at)(lastHeard(admin.JobProgress{Step: "runs"}, last.Load()))
		if at.Owner != qemu.Destination || at.Ran != ran {
			t.Errorf("ran %v: heard %+v", ran, at)
		}
		if text := restoredTo(at, "vm", admin.RestoreImage{}, nil); strings.Contains(text, "has not shown") == ran {
			t.Errorf("ran %v: %s", ran, text)
		}
	}
}

// TestOfImage holds that the failure of a restore names the image once.
func TestOfImage(t *testing.T) {
	for text, want := range map[string]string{
		`image "vm" not found`: `image "vm" not found`,
		"connection refused":   `image "vm": connection refused`,
	} {
		if got := ofImage("vm", errors.New(text)).Error(); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}
