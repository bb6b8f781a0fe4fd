package guest

import "sync"

// consoleLimit bounds what is kept of a console, in bytes.
const consoleLimit = 1 << 20

// console keeps the end of what was written to it.
type console struct {
	mu  sync.Mutex
	buf []byte
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	// Twice the limit before anything is moved keeps the moving cheap.
	if len(c.buf) > 2*consoleLimit {
		c.buf = append(c.buf[:0], c.buf[len(c.buf)-consoleLimit:]...)
	}
	return len(p), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.buf[max(0, len(c.buf)-consoleLimit):])
}
