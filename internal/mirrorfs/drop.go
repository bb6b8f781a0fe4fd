package mirrorfs

import (
	"errors"
	"fmt"
	"time"
)

// problem is why a side is out of service.
type problem struct {
	since time.Time
	err   error
}

// settle says what the caller of a change is told, after the sides in tried did it with these errors. A side that failed
// where the other did not is dropped. If a side is full the caller hears that. What failed on all sides fails as it
// would on a single one.
func (m *FS) settle(what, name string, tried uint32, errs [2]error) error {
	if errs[0] == nil && errs[1] == nil {
		return nil
	}
	live := tried & m.live.Load() // one that was dropped meanwhile has no say
	if live != 3 {
		if live&1 != 0 {
			return m.whole(errs[0])
		}
		return m.whole(errs[1])
	}
	a, b := outcomeOf(errs[0]), outcomeOf(errs[1])
	for i, o := range [2]outcome{a, b} {
		j := 1 - i
		switch {
		case o == failed && outcomeOf(errs[j]) != failed,
			o == answer && errs[j] == nil: // it lost what the other has
			if err := m.fail(i, what, name, errs[i]); err != nil {
				return err
			}
			return errs[j]
		}
	}
	switch {
	case a == failed: // and so did the other
		m.broken.Store(true)
		return errs[0]
	case b == full, errs[0] == nil:
		return errs[1]
	}
	return errs[0]
}

// whole notes what a side alone failed at.
func (m *FS) whole(err error) error {
	if outcomeOf(err) == failed {
		m.broken.Store(true)
	}
	return err
}

// fail drops side i, which failed at something that the other did. It returns nil if the caller can go on.
func (m *FS) fail(i int, what, name string, cause error) error {
	if err := m.drop(i, fmt.Errorf("%s %s: %w", what, m.on(i, name), cause)); err != nil {
		m.broken.Store(true)
		return err
	}
	return nil
}

// drop takes side i out of service for cause. When it returns nil the other side knows durably that it is alone.
func (m *FS) drop(i int, cause error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isLive(i) {
		return nil
	}
	j := 1 - i
	if len(m.sides) == 1 || !m.isLive(j) {
		return cause // it is the last
	}
	next := state{id: m.id, generation: m.generation + 1, alone: true}
	if err := m.sides[j].writeState(next); err != nil {
		return errors.Join(cause, err)
	}
	m.generation = next.generation
	m.problems[i] = problem{since: time.Now(), err: cause}
	m.live.Store(1 << j)
	m.log.Error("a metadata directory failed; the other one goes on alone", "dir", m.sides[i].Dir, "error", cause, "alone", m.sides[j].Dir)
	m.tell()
	return nil
}

// tell passes the generation on.
func (m *FS) tell() {
	if m.onChange != nil {
		m.onChange(m.generation)
	}
}

// Close marks the sides as closed in order, and gives them back. The store must be closed before.
func (m *FS) Close() error {
	var errs []error
	m.mu.Lock()
	if !m.broken.Load() {
		for i, s := range m.sides {
			if m.isLive(i) {
				next := *s.state
				next.clean = true
				errs = append(errs, s.writeState(next))
			}
		}
	}
	m.mu.Unlock()
	return errors.Join(append(errs, m.release())...)
}

func (m *FS) release() error {
	var errs []error
	for _, s := range m.sides {
		errs = append(errs, s.release())
	}
	return errors.Join(errs...)
}
