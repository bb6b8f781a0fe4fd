package nbdattach

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// giveSockets hands new connections to the kernel, and notes the size that the server has now.
//
// The two go to the kernel one after the other, never in one message. It would set the size first, and for that
// wait until no request is under way (Linux 6.10 and later), while those that are under way wait for the
// connections: all of them would fail when the timeout of the device has run out.
func (a *Attachment) giveSockets(v *device) error {
	server := v.size
	if server < a.size {
		return fmt.Errorf("%w: it had %d bytes and has %d", ErrChanged, a.size, server)
	}
	v.size = a.size
	if err := a.driver.reconfigure(v); err != nil {
		return err
	}
	a.blockSize, a.wanted, a.since = v.blockSize, server, time.Now()
	return nil
}

// growAfter is when what was under way on the connections before has been sent again.
const growAfter = requestTimeout + 2*time.Second

// grow tells the kernel that the volume is larger, once no request waits for a connection that is gone: until then it
// would hold back all others. If the server goes away in the moment that the kernel takes for it, these wait until
// the timeout of the device, and fail; nobody can reconnect it meanwhile.
func (a *Attachment) grow() {
	if a.wanted == a.size || time.Since(a.since) < growAfter && !idle(readSys(a.index, "inflight")) {
		return
	}
	v := &device{index: a.index, size: a.wanted, blockSize: a.blockSize, backend: a.backend.String()}
	if err := a.driver.resize(v); err != nil {
		a.log.Error("the device keeps the size it has", "device", a.Path(), "bytes", a.size, "error", err)
		a.wanted = a.size
		return
	}
	a.log.Info("the device has grown with its volume", "device", a.Path(), "from", a.size, "to", a.wanted)
	a.size = a.wanted
}

// idle says whether the kernel's two counters of requests that are under way, reads and writes, are zero.
func idle(inflight string) bool {
	f := strings.Fields(inflight)
	return len(f) == 2 && f[0] == "0" && f[1] == "0"
}

// sizeOf is the size of a device in bytes, as the kernel has it.
func sizeOf(index int) (int64, error) {
	sectors, err := strconv.ParseInt(readSys(index, "size"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", path(index), err)
	}
	return sectors * 512, nil
}
