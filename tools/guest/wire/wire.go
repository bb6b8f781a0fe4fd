// Package wire is what the guest harness on the host and its agent in the
// guest say to each other: one JSON object per line, requests from the host,
// events from the guest.
package wire

// PortName is the name of the virtio-serial port that carries the messages.
const PortName = "lsad.guest.agent"

// ConfigPath is where the initramfs holds the agent's Config, as JSON.
const ConfigPath = "/etc/guest-agent.json"

// MaxChunk bounds the output that one event carries, in bytes.
const MaxChunk = 32 << 10

// Config tells the agent how to set up the guest.
type Config struct {
	Modules []Module // loaded in this order
	Env     []string // environment of every script, NAME=VALUE
	Setup   string   // a shell script that runs before the agent says hello
	System  *System  `json:",omitempty"` // nil: the guest stays in its initramfs
}

// System is an installed system that the guest becomes, with an init of its own.
type System struct {
	Device string   // that its root file system, ext4, is on
	Files  []string // of the initramfs that are copied to it first
}

// Module is a kernel module to load.
type Module struct {
	Path   string // in the initramfs
	Params string // as on insmod's command line
}

// Request asks the agent to run a script, or to kill one that runs.
type Request struct {
	ID     uint64 // names the job; chosen by the host, never used twice
	Script string `json:",omitempty"` // for /bin/sh
	Stdin  []byte `json:",omitempty"`
	Kill   bool   `json:",omitempty"` // kill the job's process group
}

// Event is something that happened in the guest. Exactly one of the fields
// besides ID is set.
type Event struct {
	ID     uint64 // of the job; zero for Hello
	Hello  *Hello `json:",omitempty"`
	Stdout []byte `json:",omitempty"`
	Stderr []byte `json:",omitempty"`
	Exit   *Exit  `json:",omitempty"` // the job's last event
}

// Hello is the agent's first event: the guest is ready.
type Hello struct {
	Release string  // of the kernel
	Uptime  float64 // seconds since the kernel started
	Err     string  `json:",omitempty"` // what failed in setting up the guest
}

// Exit is how a job ended.
type Exit struct {
	Code int    // the shell's exit status; -1 if it was killed or never ran
	Err  string `json:",omitempty"` // why it never ran, or the signal that killed it
}
