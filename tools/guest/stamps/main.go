// Command stamps finds out whether a block device keeps what it acknowledged.
//
//	stamps write  DEVICE STATE SEED   writes until a write fails
//	stamps verify DEVICE STATE        checks every block that was written
//
// Every 4 KiB block of the span under test is filled with its own number and a
// version that rises with each write of it. STATE is a file that remembers,
// for each block, the newest version acknowledged and the newest one tried;
// after a failure a block must hold one of those or one in between, whole.
// Verify makes what it found the acknowledged version, so that write and
// verify can go on in turns.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
)

const (
	blockSize = 4096
	// span is how many blocks take part: few, so that they are written often.
	span = 16 << 10
)

// version counts the writes of a block. Zero is a block never written.
type version uint32

// state is what is known of the blocks. Tried is never behind Acked. Its fields
// are exported for encoding/binary.
type state struct {
	Acked, Tried [span]version
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stamps:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: stamps write DEVICE STATE SEED | stamps verify DEVICE STATE")
	}
	s, err := load(args[2])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "write" && len(args) == 4:
		seed, err := strconv.ParseUint(args[3], 10, 64)
		if err != nil {
			return err
		}
		err = writeAll(args[1], s, seed)
		return errors.Join(err, s.save(args[2]))
	case args[0] == "verify" && len(args) == 3:
		if err := verifyAll(args[1], s); err != nil {
			return err
		}
		return s.save(args[2])
	}
	return fmt.Errorf("unknown command %q", args)
}

// load reads a state; a missing file is a device never written.
func load(path string) (*state, error) {
	s := new(state)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := binary.Read(f, binary.LittleEndian, s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *state) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := binary.Write(f, binary.LittleEndian, s); err != nil {
		return err
	}
	return f.Close()
}

// stamp fills a block.
func stamp(p []byte, block int, v version) {
	for i := 0; i < blockSize; i += 8 {
		binary.LittleEndian.PutUint32(p[i:], uint32(block))
		binary.LittleEndian.PutUint32(p[i+4:], uint32(v))
	}
}

// check reads the stamp of a block and compares it with what may be there.
func (s *state) check(p []byte, block int) error {
	v := version(binary.LittleEndian.Uint32(p[4:]))
	for i := 0; i < blockSize; i += 8 {
		number := int(binary.LittleEndian.Uint32(p[i:]))
		if w := version(binary.LittleEndian.Uint32(p[i+4:])); w != v {
			return fmt.Errorf("block %d is torn: version %d at byte 0, %d at %d", block, v, w, i)
		}
		if v != 0 && number != block {
			return fmt.Errorf("block %d holds block %d", block, number)
		}
	}
	if v < s.Acked[block] || v > s.Tried[block] {
		return fmt.Errorf("block %d holds version %d; acknowledged was %d, tried %d", block, v, s.Acked[block], s.Tried[block])
	}
	s.Acked[block], s.Tried[block] = v, v
	return nil
}
