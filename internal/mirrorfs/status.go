package mirrorfs

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// SideStatus is how a side is.
type SideStatus struct {
	Dir       string
	InService bool
	Since     time.Time // when it went out of service
	Problem   string    // why
}

// Status tells of the sides, in their order.
func (m *FS) Status() []SideStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []SideStatus
	for i, s := range m.sides {
		t := SideStatus{Dir: s.Dir, InService: m.isLive(i)}
		if p := m.problems[i]; !t.InService && p.err != nil {
			t.Since, t.Problem = p.since, p.err.Error()
		}
		list = append(list, t)
	}
	return list
}

// Verify reads the tables of both sides once, at most so many bytes a second from each, and drops a side with one that
// is not as it was written. It returns when it is through, when one side serves alone, or when the context ends.
func (m *FS) Verify(ctx context.Context, bytesPerSecond int64) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	pace := func(n int) error {
		tick.Reset(time.Duration(int64(n) * int64(time.Second) / bytesPerSecond))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			return nil
		}
	}
	if m.alone() {
		return nil
	}
	names, err := m.sides[0].files()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, busy := m.writing.Load(m.PathJoin(m.root, name)); busy || !isTable(name) {
			continue
		}
		if m.alone() {
			return nil
		}
		same, err := sameContent(ctx, m.sides[0], m.sides[1], name, pace)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) || same {
			continue // the store removed it meanwhile
		}
		if err := m.judge(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// judge drops the side whose copy of a table is damaged.
func (m *FS) judge(ctx context.Context, name string) error {
	var errs [2]error
	for i, s := range m.sides {
		errs[i] = s.checkTable(ctx, name)
	}
	path := m.PathJoin(m.root, name)
	switch {
	case errors.Is(errs[0], fs.ErrNotExist) && errors.Is(errs[1], fs.ErrNotExist):
		return nil
	case errs[0] != nil && errs[1] == nil:
		return m.fail(0, "verify", path, errs[0])
	case errs[1] != nil && errs[0] == nil:
		return m.fail(1, "verify", path, errs[1])
	}
	m.log.Error("a file of the metadata store differs between its directories, and neither is right", "file", name, "errors", errors.Join(errs[0], errs[1]))
	return nil
}
