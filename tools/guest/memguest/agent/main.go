// Command agent is the only process of a guest whose memory is moved about by a test; see package memguest. It fills
// memory with what it can check, frees some of it, and then goes on for ever checking and rewriting, a line on the
// serial port for each round. A page that is not what it was written as is a line that begins with CORRUPT.
//
// It takes its settings from the kernel's command line, which passes them on as its environment: used and freed, in
// MiB.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// rewritten is how many pages each round writes anew.
const rewritten = 256

// scratch is the size of the memory that each round takes from the kernel and gives back, in bytes.
const scratch = 2 << 20

func main() {
	if err := run(); err != nil {
		fmt.Println("agent:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // nothing is left to do if it fails
}

func run() error {
	for dir, kind := range map[string]string{"/dev": "devtmpfs", "/proc": "proc"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	m, err := newMemory(megabytes("used"))
	if err != nil {
		return err
	}
	if err := useAndFree(megabytes("freed")); err != nil {
		return err
	}
	fmt.Fprintf(tty, "\nready free=%s\n", memFree())
	for n := 1; ; n++ {
		bad, err := m.round(n)
		if err != nil {
			return err
		}
		if bad != "" {
			fmt.Fprintf(tty, "CORRUPT %s\n", bad)
		}
		fmt.Fprintf(tty, "round %d\n", n)
		time.Sleep(20 * time.Millisecond)
	}
}

func megabytes(name string) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return 0
	}
	return n << 20
}

func memFree() string {
	text, _ := os.ReadFile("/proc/meminfo") // for people
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemFree:"); ok {
			return strings.ReplaceAll(strings.TrimSpace(rest), " ", "")
		}
	}
	return "?"
}

func mmap(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

// useAndFree leaves n bytes of free memory full of old data.
func useAndFree(n int) error {
	if n == 0 {
		return nil
	}
	p, err := mmap(n)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += pageSize {
		fill(p[i:i+pageSize], uint64(i), 1<<40)
	}
	return unix.Munmap(p)
}

// memory is what is checked. Page i holds what fill makes of i and generation[i].
type memory struct {
	data       []byte
	generation []uint64
	next       int
}

func newMemory(n int) (*memory, error) {
	p, err := mmap(max(n, pageSize*rewritten))
	if err != nil {
		return nil, err
	}
	m := &memory{data: p, generation: make([]uint64, len(p)/pageSize)}
	for i := range m.generation {
		fill(m.page(i), uint64(i), 0)
	}
	return m, nil
}

func (m *memory) page(i int) []byte { return m.data[i*pageSize : (i+1)*pageSize] }

// round checks every page, writes some anew, and looks whether memory fresh from the kernel is zero.
func (m *memory) round(n int) (bad string, err error) {
	for i := range m.generation {
		if !check(m.page(i), uint64(i), m.generation[i]) {
			bad = fmt.Sprintf("round %d page %d generation %d holds %x", n, i, m.generation[i], m.page(i)[:16])
		}
	}
	for range rewritten {
		m.generation[m.next] = uint64(n)
		fill(m.page(m.next), uint64(m.next), uint64(n))
		m.next = (m.next + 1) % len(m.generation)
	}
	fresh, err := mmap(scratch)
	if err != nil {
		return bad, err
	}
	for i, b := range fresh {
		if b != 0 {
			bad = fmt.Sprintf("round %d fresh memory at %d holds %#x", n, i, b)
		}
		fresh[i] = byte(n)
	}
	return bad, unix.Munmap(fresh)
}

const mix = 0x9e3779b97f4a7c15

func fill(p []byte, page, generation uint64) {
	v := (page+1)*mix ^ generation
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], v)
		v += mix
	}
}

func check(p []byte, page, generation uint64) bool {
	v := (page+1)*mix ^ generation
	for i := 0; i < len(p); i += 8 {
		if binary.LittleEndian.Uint64(p[i:]) != v {
			return false
		}
		v += mix
	}
	return true
}
