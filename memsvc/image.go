package memsvc

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Image is an open image or fork. Its methods may be called from many goroutines at once.
type Image struct {
	info   Info
	volume Volume
	ram    int64
}

// Open opens an image. client is who opens it, for people; the image cannot be deleted until Close.
func (s *Service) Open(name, client string) (*Image, error) {
	if _, err := s.lookup(name); err != nil {
		return nil, err
	}
	v, err := s.store.Open(name, client)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", name, err)
	}
	// Only now, while it cannot be deleted and its name used again.
	info, err := s.Get(name)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return &Image{info: info, volume: v, ram: info.Manifest.RAM()}, nil
}

// Info is what the image was when it was opened.
func (i *Image) Info() Info { return i.info }

// Manifest is not to be changed.
func (i *Image) Manifest() *Manifest { return i.info.Manifest }

// RAM is the number of bytes of all RAM blocks.
func (i *Image) RAM() int64 { return i.ram }

// ReadAt fills p with RAM from an offset in the image. Holes are zeros.
func (i *Image) ReadAt(p []byte, off int64) error {
	if err := i.check(off, int64(len(p))); err != nil {
		return err
	}
	return i.volume.ReadAt(p, off)
}

// Extents calls fn with consecutive extents of RAM that cover [off, off+n), until it returns false. A hole is
// zeros and nothing that has to be sent.
func (i *Image) Extents(off, n int64, fn func(n int64, hole bool) bool) error {
	if err := i.check(off, n); err != nil {
		return err
	}
	return i.volume.Extents(off, n, func(n int64, hole, zero bool) bool { return fn(n, hole || zero) })
}

func (i *Image) check(off, n int64) error {
	if off < 0 || n < 0 || off > i.ram || n > i.ram-off {
		return fmt.Errorf("image %q: %w: %d bytes at %d, the RAM has %d", i.info.Name, ErrInvalid, n, off, i.ram)
	}
	return nil
}

// State reads the device state from its beginning. Its last read fails if the state is not what was stored.
func (i *Image) State() io.Reader {
	st := i.info.Manifest.State
	r := &stateReader{image: i.info.Name, want: st.SHA256, sum: sha256.New()}
	r.from = io.NewSectionReader(volumeReader{i.volume}, st.Offset, st.Length)
	return r
}

// Close ends the use of the image.
func (i *Image) Close() error { return i.volume.Close() }

// volumeReader reads a Volume as an io.ReaderAt.
type volumeReader struct{ v Volume }

func (r volumeReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.v.ReadAt(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// stateReader verifies what passes through it.
type stateReader struct {
	image, want string
	from        io.Reader
	sum         interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (r *stateReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	_, _ = r.sum.Write(p[:n]) // a hash takes everything
	if err == io.EOF && r.want != "" {
		if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want {
			return n, fmt.Errorf("image %q: device state: %w: its checksum is %s, the manifest has %s", r.image, ErrDamaged, got, r.want)
		}
	}
	return n, err
}
