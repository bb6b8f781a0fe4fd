package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// stamper writes blocks that say which write they are of, over a connection of its own, and remembers which writes
// were acknowledged. Its blocks are those whose number is its own modulo the number of stampers.
type stamper struct {
	conn        net.Conn
	rng         *rand.Rand
	own, stride uint64
	sent, acked []uint64 // by block: number of the last write
	next        uint64
	buf         []byte
}

const (
	stampers    = 4
	stampBlocks = 2048 // of 4 KiB each, of all stampers together
	stampDepth  = 16
)

// The NBD protocol's simple requests and replies, as far as they are needed here.
const (
	nbdRequest     = 0x25609513
	nbdSimpleReply = 0x67446698
	nbdRead        = 0
	nbdWrite       = 1
)

func appendRequest(buf []byte, command uint16, cookie, off uint64, length uint32) []byte {
	be := binary.BigEndian
	buf = be.AppendUint32(buf, nbdRequest)
	buf = be.AppendUint16(buf, 0)
	buf = be.AppendUint16(buf, command)
	buf = be.AppendUint64(buf, cookie)
	buf = be.AppendUint64(buf, off)
	return be.AppendUint32(buf, length)
}

// readReply reads the head of a simple reply.
func readReply(r io.Reader) (cookie uint64, err error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	be := binary.BigEndian
	if be.Uint32(head[:]) != nbdSimpleReply || be.Uint32(head[4:]) != 0 {
		return 0, fmt.Errorf("reply %x", head)
	}
	return be.Uint64(head[8:]), nil
}

// stamp fills a block.
func stamp(p []byte, block, number uint64) {
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], block)
		binary.LittleEndian.PutUint64(p[i+8:], number)
	}
}

// unstamp is the number of the write that a block is of, 0 for none; ok is false if it is of no single write.
func unstamp(p []byte, block uint64) (number uint64, ok bool) {
	number = binary.LittleEndian.Uint64(p[8:])
	for i := 0; i < len(p); i += 16 {
		b, n := binary.LittleEndian.Uint64(p[i:]), binary.LittleEndian.Uint64(p[i+8:])
		if n != number || b != block && number != 0 {
			return 0, false
		}
	}
	return number, true
}

// run writes until the connection breaks.
func (s *stamper) run() {
	for s.round() == nil {
	}
}

// round sends some writes at once, and takes in their replies.
func (s *stamper) round() error {
	s.buf = s.buf[:0]
	blocks := map[uint64]bool{}
	for len(blocks) < stampDepth {
		blocks[s.rng.Uint64N(stampBlocks/s.stride)*s.stride+s.own] = true
	}
	s.next++
	for b := range blocks {
		s.sent[b] = s.next
		s.buf = appendRequest(s.buf, nbdWrite, b, b*4096, 4096)
		s.buf = append(s.buf, make([]byte, 4096)...)
		stamp(s.buf[len(s.buf)-4096:], b, s.next)
	}
	if _, err := s.conn.Write(s.buf); err != nil {
		return err
	}
	for range blocks {
		b, err := readReply(s.conn)
		if err != nil {
			return err
		}
		s.acked[b] = s.sent[b]
	}
	return nil
}

// TestKill kills a server again and again while clients write, and holds that no acknowledged write is gone.
func TestKill(t *testing.T) {
	rounds := 3
	if os.Getenv("LSAD_TEST") == "full" {
		rounds = 20
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	sent, acked := make([]uint64, stampBlocks), make([]uint64, stampBlocks)
	var first uint64
	p := serveIn(t, dir, append(small, "--volume=stamped:16MiB")...)
	for round := range rounds {
		fio := load(t, dir)
		var wg sync.WaitGroup
		var all []*stamper
		for i := range stampers {
			s := &stamper{
				conn: openExport(t, filepath.Join(dir, "lsad-data", "nbd.sock"), "stamped"), rng: rand.New(rand.NewPCG(seed, uint64(round*stampers+i+2))),
				own: uint64(i), stride: stampers, sent: sent, acked: acked, next: first,
			}
			all = append(all, s)
			wg.Go(s.run)
		}
		time.Sleep(time.Duration(50+rng.IntN(400)) * time.Millisecond)
		p.kill()
		wg.Wait()
		for _, s := range all {
			first = max(first, s.next)
		}
		if fio != nil {
			fio.Wait() // its connection is gone: what it says does not matter
		}
		p = serveIn(t, dir, again...)
		verifyStamps(t, dir, round, sent, acked)
	}
	if first < uint64(rounds) {
		t.Errorf("only %d rounds of writes were sent", first)
	}
	t.Logf("%d rounds of %d writes in flight, %d kills", first, stampers*stampDepth, rounds)
	p.stop()
	if r := lsad(t, dir, "check"); r.code != 0 {
		t.Errorf("check: %+v", r)
	}
}

// load has fio write to another volume meanwhile, if it is installed.
func load(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath("fio"); err != nil {
		return nil
	}
	cmd := exec.Command("fio", "--name=load", "--ioengine=nbd", "--uri=nbd+unix:///vol0?socket=lsad-data/nbd.sock",
		"--rw=randrw", "--bsrange=512-64k", "--size=100m", "--iodepth=16", "--time_based", "--runtime=20", "--fdatasync=64")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func verifyStamps(t *testing.T, dir string, round int, sent, acked []uint64) {
	t.Helper()
	c := openExport(t, filepath.Join(dir, "lsad-data", "nbd.sock"), "stamped")
	defer c.Close()
	block := make([]byte, 4096)
	for b := range uint64(stampBlocks) {
		if _, err := c.Write(appendRequest(nil, nbdRead, b, b*4096, 4096)); err != nil {
			t.Fatal(err)
		}
		if _, err := readReply(c); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, block); err != nil {
			t.Fatal(err)
		}
		got, ok := unstamp(block, b)
		if !ok || got < acked[b] || got > sent[b] {
			t.Errorf("after kill %d block %d is of write %d (whole: %v); %d was acknowledged, %d sent", round+1, b, got, ok, acked[b], sent[b])
		}
		acked[b] = got // whatever came through stays
	}
}
