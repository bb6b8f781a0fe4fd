package memsvc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"lsad/kvmhook/guestmem"
)

// Config of a service.
type Config struct {
	Store Store // required
	// FreePages finds the pages that a paused guest has free; nil for guestmem.FreePages.
	FreePages FreePages
	Logger    *slog.Logger // nil discards
}

// FreePages is what guestmem.FreePages does.
type FreePages func(context.Context, *guestmem.Memory, guestmem.Options) (*guestmem.PageSet, guestmem.Report, error)

// Service is the catalogue of images of one store, and the jobs on them. Close ends it.
type Service struct {
	store     Store
	freePages FreePages
	log       *slog.Logger

	ctx    context.Context // of every job
	cancel context.CancelFunc
	jobs   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	names  map[string]*naming // of images in the making
	stats  Stats
}

// Stats count since the service was made.
type Stats struct {
	Imports       int64 // images completed
	ImportsFailed int64
	ImportsActive int64
	StoredBytes   int64 // of memory, written by completed imports
	FreeBytes     int64 // elided by them because the guest had them free
	ZeroBytes     int64 // elided by them because they were zeros
}

// New makes a service. Call Sweep before anything else.
func New(cfg Config) *Service {
	s := &Service{store: cfg.Store, freePages: cfg.FreePages, log: cfg.Logger, names: map[string]*naming{}}
	if s.freePages == nil {
		s.freePages = guestmem.FreePages
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close cancels all jobs and waits until they have cleaned up.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.jobs.Wait()
}

// Job begins work that Close cancels and waits for: ctx ends with the caller's and with the service. Call done
// when the work, and the cleaning up after it, has ended.
func (s *Service) Job(parent context.Context) (ctx context.Context, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, fmt.Errorf("images: %w", ErrClosed)
	}
	s.jobs.Add(1)
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(s.ctx, func() { cancel(fmt.Errorf("images: %w", ErrClosed)) })
	return ctx, func() {
		stop()
		cancel(nil)
		s.jobs.Done()
	}, nil
}

// Stats returns them as they are now.
func (s *Service) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Service) count(fn func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.stats)
}

// naming is who has taken a name.
type naming struct {
	ctx  context.Context // of the work
	done chan struct{}   // closed when it has given the name back
}

// take reserves the name of an image that is being made, so that two imports cannot race for it. Work that was cancelled
// gives its name back soon: that is waited for.
func (s *Service) take(ctx context.Context, name string) error {
	for {
		other, err := s.tryTake(ctx, name)
		if other == nil || err != nil {
			return err
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Service) tryTake(ctx context.Context, name string) (other *naming, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.names[name]; n != nil {
		if n.ctx.Err() == nil {
			return n, fmt.Errorf("image %q %w, it is being imported", name, ErrExists)
		}
		return n, nil
	}
	if _, err := s.store.Volume(name); err == nil {
		return nil, fmt.Errorf("image %q: a volume or image of that name %w", name, ErrExists)
	} else if !s.store.IsNotFound(err) {
		return nil, err
	}
	s.names[name] = &naming{ctx, make(chan struct{})}
	return nil, nil
}

func (s *Service) give(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.names[name].done)
	delete(s.names, name)
}

// Sweep deletes what imports, forks and deletions left behind that a dead process had begun. Nothing may use
// the service meanwhile.
func (s *Service) Sweep(ctx context.Context) error {
	var errs []error
	for _, v := range s.store.Volumes() {
		if Classify(v.Name, v.Attributes) != ClassHidden {
			continue
		}
		a, err := decodeAttributes(v.Attributes)
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", v.Name, err))
			continue
		}
		var st staging // of a clone that had not got its own attributes yet, nothing is known or needed
		if a.Staging != nil {
			st = *a.Staging
		}
		if err := s.deleteStaging(ctx, v.Name, st); err != nil {
			errs = append(errs, err)
			continue
		}
		s.log.Info("deleted what an interrupted operation on an image left behind", "image", st.Image, "volume", v.Name, "begun", st.Since)
	}
	return errors.Join(errs...)
}

// deleteStaging deletes a staging volume after what was made for it.
func (s *Service) deleteStaging(ctx context.Context, name string, st staging) error {
	for _, ref := range st.Volumes {
		if err := s.deleteRef(ctx, ref, st); err != nil {
			return fmt.Errorf("clean up image %q: %w", st.Image, err)
		}
	}
	if err := s.store.Delete(ctx, name); err != nil && !s.store.IsNotFound(err) {
		return fmt.Errorf("clean up image %q: %w", st.Image, err)
	}
	return nil
}

// deleteRef deletes the clone that a fork was to have, or else the snapshot that an image was to have.
func (s *Service) deleteRef(ctx context.Context, ref VolumeRef, st staging) error {
	name := ref.Name + "@" + ref.Snapshot
	if ref.Clone != "" {
		v, err := s.store.Volume(ref.Clone)
		// Only what this operation made: somebody else may have taken the name.
		if err != nil || v.Origin != name || v.Created.Before(st.Since) {
			return nil
		}
		name = ref.Clone
	}
	err := s.store.Delete(ctx, name)
	if err != nil && !s.store.IsNotFound(err) {
		if v, e := s.store.Volume(ref.Name); e == nil && len(v.Clients) > 0 {
			s.log.Warn("a snapshot of a deleted image is in use and stays; delete it with lsad volume delete", "snapshot", name, "error", err)
			return nil
		}
		return err
	}
	return nil
}
