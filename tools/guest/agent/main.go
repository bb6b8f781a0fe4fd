// Command agent is the first process of a test guest, and the program that
// runs scripts in it for the host; see package guest. It is built static, put
// into the initramfs as /init and is of no use anywhere else.
//
// As process 1 it sets up the guest, starts itself a second time as the agent
// proper, and then does nothing but reap orphans: a process that waits for
// every child cannot also use os/exec, hence the two. When the agent ends,
// which it does when the host closes the port, process 1 powers the guest off.
// Where the guest has a system of its own, process 1 becomes the init of that, and
// the agent is a service of it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"lsad/tools/guest/wire"
)

// setupErrEnv carries what went wrong in process 1 to the agent, which is the
// one that can tell the host.
const setupErrEnv = "GUEST_SETUP_ERROR"

func main() {
	if os.Getpid() != 1 {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	if err := initGuest(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "init: power off:", err)
	}
}

// initGuest is process 1 up to the moment when the agent has ended.
func initGuest() error {
	cfg, setupErr := setup()
	if cfg.System != nil && setupErr == nil {
		setupErr = enterSystem(cfg) // returns only if it fails
	}
	agent := exec.Command("/init")
	agent.Env = append([]string{"PATH=/usr/local/bin:/bin", "HOME=/root"}, cfg.Env...)
	if setupErr != nil {
		agent.Env = append(agent.Env, setupErrEnv+"="+setupErr.Error())
	}
	agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
	if err := agent.Start(); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if pid == agent.Process.Pid {
			return nil
		}
	}
}

func readConfig() (wire.Config, error) {
	var cfg wire.Config
	raw, err := os.ReadFile(wire.ConfigPath)
	if err != nil {
		return cfg, err
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, fmt.Errorf("%s: %w", wire.ConfigPath, err)
	}
	return cfg, nil
}
