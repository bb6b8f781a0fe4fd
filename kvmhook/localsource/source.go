// Package localsource reads an image of a server on this machine for kvmhook: its blocks from the server's devices where
// they are known to lie, which takes no change of process, and everything else over NBD.
//
// What is read directly is checked as the server would check it, and what does not pass is asked of the server (package
// direct). So only the server says that content is lost, and while it is away, what was located before still comes.
//
// It owns nothing of its own: the reader and the NBD connections have their goroutines and locks.
package localsource

import (
	"context"
	"errors"
	"fmt"

	"lsad/internal/direct"
	"lsad/kvmhook/nbdsource"
)

// Source is an image. It implements kvmhook.Near.
type Source struct {
	*nbdsource.Source
	reader *direct.Reader
}

// Places are where blocks of an image lie.
type Places struct {
	direct.Answer
	// Export is how the server describes the image that it means, which has to be the one that is open over NBD.
	Export string
}

// Locate asks the server.
type Locate func(ctx context.Context, off int64, blocks int) (Places, error)

var errOther = errors.New("the server tells of another image")

// New makes a source of an image that is open over NBD, which it takes over.
func New(n *nbdsource.Source, o nbdsource.Options, locate Locate) *Source {
	ask := func(ctx context.Context, off int64, blocks int) (*direct.Answer, error) {
		p, err := locate(ctx, off, blocks)
		if err == nil && !n.Is(p.Export) {
			err = fmt.Errorf("%w: %q, not %q", errOther, p.Export, n.Info().Description)
		}
		return &p.Answer, err
	}
	return &Source{n, direct.NewReader(n.Size(), ask, o.Logger)}
}

// Close ends both ways of reading.
func (s *Source) Close() error {
	err := s.Source.Close()
	s.reader.Close()
	return err
}

// TryReadAt implements kvmhook.Near.
func (s *Source) TryReadAt(p []byte, off int64) bool { return s.reader.TryReadAt(p, off) }

// ReadAt implements kvmhook.Source.
func (s *Source) ReadAt(ctx context.Context, p []byte, off int64) error {
	if s.reader.ReadAt(ctx, p, off) {
		return nil
	}
	return s.Source.ReadAt(ctx, p, off)
}

// DirectBytes is how much came from the devices.
func (s *Source) DirectBytes() int64 { return s.reader.Bytes() }
