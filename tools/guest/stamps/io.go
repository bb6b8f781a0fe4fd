package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	writers  = 16
	maxWrite = 16 // blocks
	// share is how many blocks belong to one writer: no block has two writes
	// in flight, which could end either way.
	share = span / writers
)

// openDirect opens a device past the page cache, and makes a buffer for it.
func openDirect(device string, blocks int) (*os.File, []byte, error) {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, nil, err
	}
	buf, err := unix.Mmap(-1, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("buffer: %w", err)
	}
	return f, buf, nil
}

// writeAll runs the writers until each has met an error, which is returned.
// It prints a line for every thousand writes acknowledged.
func writeAll(device string, s *state, seed uint64) error {
	var wg sync.WaitGroup
	var acked atomic.Int64
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			errs[i] = writer{s, i * share, rand.New(rand.NewPCG(seed, uint64(i))), &acked}.run(device)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// writer writes the blocks of one share, one request at a time.
type writer struct {
	s     *state
	first int
	rng   *rand.Rand
	acked *atomic.Int64
}

func (w writer) run(device string) error {
	f, buf, err := openDirect(device, maxWrite)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		count := 1 + w.rng.IntN(maxWrite)
		at := w.first + w.rng.IntN(share-count+1)
		if err := w.write(f, buf, at, count); err != nil {
			return err
		}
		if n := w.acked.Add(1); n%1000 == 0 {
			fmt.Println(n)
		}
		if w.rng.IntN(50) == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
}

func (w writer) write(f *os.File, buf []byte, at, count int) error {
	for i := range count {
		w.s.Tried[at+i]++
		stamp(buf[i*blockSize:], at+i, w.s.Tried[at+i])
	}
	if _, err := f.WriteAt(buf[:count*blockSize], int64(at)*blockSize); err != nil {
		return err
	}
	copy(w.s.Acked[at:at+count], w.s.Tried[at:at+count])
	return nil
}

// verifyAll reads the span and checks each block.
func verifyAll(device string, s *state) error {
	f, buf, err := openDirect(device, maxWrite)
	if err != nil {
		return err
	}
	defer f.Close()
	wrong := 0
	for at := 0; at < span; at += maxWrite {
		if _, err := f.ReadAt(buf, int64(at)*blockSize); err != nil {
			return err
		}
		for i := range maxWrite {
			if err := s.check(buf[i*blockSize:], at+i); err != nil {
				wrong++
				if wrong <= 10 {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d blocks are wrong", wrong, span)
	}
	return nil
}
