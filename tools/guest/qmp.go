package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
)

// qmpSocket is the name of QEMU's control socket in a guest's directory.
const qmpSocket = "qmp.sock"

// qmpMessage is a line that QEMU sends: a greeting, an event or an answer.
type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// QMP has QEMU's monitor execute a command, such as "stop", with arguments that
// become JSON (nil for none), and returns the answer. Each call is a connection
// of its own, so that a test may hand [VM.QMPSocket] to another program between
// two calls.
func (vm *VM) QMP(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", vm.QMPSocket())
	if err != nil {
		return nil, fmt.Errorf("guest: QMP: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	enc, dec := json.NewEncoder(conn), json.NewDecoder(conn)
	if _, err := qmpExecute(enc, dec, "qmp_capabilities", nil); err != nil {
		return nil, err
	}
	return qmpExecute(enc, dec, command, arguments)
}

// QMPSocket is the path of the unix socket at which QEMU's monitor takes one
// connection at a time.
func (vm *VM) QMPSocket() string { return filepath.Join(vm.dir, qmpSocket) }

func qmpExecute(enc *json.Encoder, dec *json.Decoder, command string, arguments any) (json.RawMessage, error) {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := enc.Encode(request); err != nil {
		return nil, fmt.Errorf("guest: QMP %s: %w", command, err)
	}
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			return nil, fmt.Errorf("guest: QMP %s: %w", command, err)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("guest: QMP %s: %s: %s", command, m.Error.Class, m.Error.Desc)
		}
		if m.Return != nil {
			return m.Return, nil
		}
	}
}
