package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"lsad/internal/nbdproto"
)

// BenchmarkRequests measures 4 KiB requests over a real unix socket against a disk in memory, client included.
// It must not allocate.
func BenchmarkRequests(b *testing.B) {
	for _, cmd := range []uint16{nbdproto.CmdRead, nbdproto.CmdWrite} {
		for _, depth := range []int{1, 32} {
			for _, waits := range []bool{false, true} {
				op, _ := opOf(cmd)
				name := fmt.Sprintf("%v/depth=%d", op, depth)
				if waits {
					name += "/workers"
				}
				b.Run(name, func(b *testing.B) { benchRequests(b, cmd, depth, waits) })
			}
		}
	}
}

func benchRequests(b *testing.B, cmd uint16, depth int, waits bool) {
	const size = 4096
	r := newRig(b, func(_ *Config, s *shelf) {
		if waits {
			s.disks["disk"].TryReads = 1
		}
	})
	d := r.shelf.disks["disk"]
	for off := int64(0); off < testSize; off += 1 << 20 {
		d.WriteBatch([]int64{off}, [][]byte{pattern(1<<20, 0)}, []error{nil})
	}
	c := r.dial(b)
	c.enter(simple, "disk")

	flags := uint16(0)
	if waits && cmd == nbdproto.CmdWrite {
		flags = nbdproto.CmdFlagFUA
	}
	x := req{cmd: cmd, flags: flags, n: size}
	replySize := nbdproto.SimpleReplySize + size
	if cmd == nbdproto.CmdWrite {
		x.data, replySize = pattern(size, 1), nbdproto.SimpleReplySize
	}
	var burst []byte
	for range depth {
		burst = append(burst, x.bytes(simple)...)
	}
	each := len(burst) / depth
	replies := make([]byte, depth*replySize)

	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	// A window of depth requests: as replies come in, as many requests go out.
	left, out := b.N, 0
	for left > 0 || out > 0 {
		n := min(depth-out, left)
		for i := range n {
			off := uint64(left-i) % (testSize / size) * size
			binary.BigEndian.PutUint64(burst[i*each+16:], off)
		}
		if n > 0 {
			if _, err := c.nc.Write(burst[:n*each]); err != nil {
				b.Fatal(err)
			}
			left, out = left-n, out+n
		}
		got := readReplies(b, c.nc, replies, replySize)
		out -= got
	}
	b.StopTimer()
	c.disconnect()
}

// readReplies takes in at least one reply, and as many as are there.
func readReplies(b *testing.B, nc net.Conn, p []byte, size int) int {
	n, err := io.ReadAtLeast(nc, p, size)
	if err == nil && n%size != 0 {
		_, err = io.ReadFull(nc, p[n:n-n%size+size])
		n = n - n%size + size
	}
	if err != nil {
		b.Fatal(err)
	}
	if e := binary.BigEndian.Uint32(p[4:]); e != 0 {
		b.Fatalf("error %d", e)
	}
	return n / size
}

// TestNoAllocation holds what the benchmark shows: requests that are served as they come allocate nothing.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget on purpose")
	}
	r := newRig(t, nil)
	c := r.enter(t, simple, "disk")
	x := req{cmd: nbdproto.CmdWrite, data: pattern(4096, 1)}.bytes(simple)
	x = append(x, req{cmd: nbdproto.CmdRead, n: 4096}.bytes(simple)...)
	reply := make([]byte, 2*nbdproto.SimpleReplySize+4096)
	allocs := testing.AllocsPerRun(2000, func() {
		c.nc.Write(x)
		io.ReadFull(c.nc, reply)
	})
	// The collector may empty the pools once or twice meanwhile.
	if allocs >= 0.5 {
		t.Errorf("%.2f allocations for a write and a read", allocs)
	}
}
