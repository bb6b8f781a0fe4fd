package admin

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The stream of an export is a header, then runs in order of their offsets, then an end: magic and size; offset and
// length and bytes; the size and zero. What lies between runs is zeros. All numbers are little-endian and have 64 bits.
const imageStreamMagic = 0x314d4152_4441534c // "LSADRAM1"

// maxRun bounds the length of one run, in bytes.
const maxRun = 64 << 20

// ImageStreamWriter writes the stream of an export.
type ImageStreamWriter struct {
	w    io.Writer
	size int64
}

// NewImageStreamWriter begins a stream of an image with so many bytes.
func NewImageStreamWriter(w io.Writer, size int64) (*ImageStreamWriter, error) {
	s := &ImageStreamWriter{w, size}
	return s, s.pair(imageStreamMagic, size)
}

func (s *ImageStreamWriter) pair(a, b int64) error {
	var p [16]byte
	binary.LittleEndian.PutUint64(p[:], uint64(a))
	binary.LittleEndian.PutUint64(p[8:], uint64(b))
	_, err := s.w.Write(p[:])
	return err
}

// Run adds bytes at an offset.
func (s *ImageStreamWriter) Run(off int64, data []byte) error {
	if err := s.pair(off, int64(len(data))); err != nil {
		return err
	}
	_, err := s.w.Write(data)
	return err
}

// End ends the stream.
func (s *ImageStreamWriter) End() error { return s.pair(s.size, 0) }

// ReadImageStream calls begin with the size, and run with each run and the reader of its bytes, until the end. It
// fails if the stream was cut short.
func ReadImageStream(r io.Reader, begin func(size int64) error, run func(off, n int64, from io.Reader) error) error {
	magic, size, err := readPair(r)
	if err != nil {
		return err
	}
	if magic != imageStreamMagic || size < 0 {
		return fmt.Errorf("not the memory of an image: it begins with %#x and a size of %d", magic, size)
	}
	if err := begin(size); err != nil {
		return err
	}
	for next := int64(0); ; {
		off, n, err := readPair(r)
		if err != nil {
			return err
		}
		if n == 0 && off == size {
			return nil
		}
		if off < next || n <= 0 || n > maxRun || off > size-n {
			return fmt.Errorf("the memory of an image of %d bytes has %d bytes at %d", size, n, off)
		}
		next = off + n
		from := &io.LimitedReader{R: r, N: n}
		if err := run(off, n, from); err != nil {
			return err
		}
		if from.N != 0 {
			return fmt.Errorf("run at %d: %w", off, io.ErrUnexpectedEOF)
		}
	}
}

func readPair(r io.Reader) (a, b int64, err error) {
	var p [16]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return 0, 0, fmt.Errorf("the server stopped in the middle of the memory: %w", err)
	}
	return int64(binary.LittleEndian.Uint64(p[:])), int64(binary.LittleEndian.Uint64(p[8:])), nil
}
