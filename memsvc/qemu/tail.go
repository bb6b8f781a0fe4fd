package qemu

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
)

// Bounds of the search for the end of a stream.
const (
	maxDescription = 16 << 20 // bytes
	maxCandidates  = 256
)

// tail gathers what follows the RAM's last section and finds its end. Device state says nowhere how long it is;
// but a stream ends with EOF, the type of the description, its length, and as much JSON.
type tail struct {
	buf     []byte
	scanned int         // candidates before it are known
	ends    map[int]int // where a description would end: where its EOF byte is
	seen    int

	device, description []byte
}

// tailHead is what comes before the description, and its first byte.
const tailHead = 1 + 1 + 4 + 1

// add takes more of the stream, and says whether that was its end.
func (t *tail) add(p []byte) (done bool, err error) {
	if len(t.buf)+len(p) > maxDeviceState {
		return false, malformed("more than %d bytes of device state", maxDeviceState)
	}
	t.buf = append(t.buf, p...)
	if err := t.scan(); err != nil {
		return false, err
	}
	at, ok := t.ends[len(t.buf)]
	if !ok || !isDescription(t.buf[at+tailHead-1:]) {
		return false, nil
	}
	t.device, t.description = t.buf[:at:at], t.buf[at+tailHead-1:]
	return true, nil
}

// isDescription says whether JSON is a description of device state.
func isDescription(text []byte) bool {
	var d struct {
		PageSize int               `json:"page_size"`
		Devices  []json.RawMessage `json:"devices"`
	}
	return json.Unmarshal(text, &d) == nil && d.PageSize == PageSize && d.Devices != nil
}

// scan looks for descriptions that begin in what is new.
func (t *tail) scan() error {
	for {
		i := bytes.Index(t.buf[t.scanned:], []byte{typeEOF, typeDescription})
		if i < 0 {
			t.scanned = max(t.scanned, len(t.buf)-1)
			return nil
		}
		t.scanned += i
		if t.scanned+tailHead > len(t.buf) {
			return nil
		}
		head := t.buf[t.scanned:]
		n := binary.BigEndian.Uint32(head[2:])
		end := t.scanned + tailHead - 1 + int(n)
		if head[tailHead-1] == '{' && n <= maxDescription && end >= len(t.buf) {
			if t.seen++; t.seen > maxCandidates {
				return malformed("its end cannot be told")
			}
			if t.ends == nil {
				t.ends = map[int]int{}
			}
			if _, taken := t.ends[end]; !taken {
				t.ends[end] = t.scanned
			}
		}
		t.scanned++
	}
}
