package memsvc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// names of all volumes, with their snapshots.
func (s *memStore) names() []string {
	var all []string
	for _, v := range s.Volumes() {
		all = append(all, v.Name)
		for _, snap := range v.Snapshots {
			all = append(all, v.Name+"@"+snap)
		}
	}
	return all
}

// diesAnywhere runs an operation on a store that dies after each number of changes in turn, until the operation gets
// through. After each death a new process must find what was there before, or what is there afterwards.
func diesAnywhere(t *testing.T, prepare func(*Service, *memStore), operate func(*Service) error, after func(names []string) bool) {
	t.Helper()
	for n := 0; ; n++ {
		store := newMemStore()
		s := newService(t, store, nil)
		if err := store.Create(t.Context(), "disk", PageSize, nil); err != nil {
			t.Fatal(err)
		}
		prepare(s, store)
		before := store.names()
		store.die(n)
		err := operate(s)
		store.crash()
		again := newService(t, store, nil)
		if e := again.Sweep(t.Context()); e != nil {
			t.Fatalf("death after %d changes: sweep: %v", n, e)
		}
		got := store.names()
		if err == nil {
			if !after(got) {
				t.Errorf("in the end there are %q", got)
			}
			if n < 3 {
				t.Errorf("only %d changes", n)
			}
			return
		}
		if !errors.Is(err, errDead) {
			t.Fatalf("death after %d changes: %v", n, err)
		}
		if !slices.Equal(got, before) && !after(got) {
			t.Errorf("death after %d changes: %q is there, want %q or all of what was asked for", n, got, before)
		}
		if n > 100 {
			t.Fatal("it never gets through")
		}
	}
}

func TestDeathInImport(t *testing.T) {
	diesAnywhere(t, func(*Service, *memStore) {}, func(s *Service) error {
		_, err := importKinds(t, s, "ab c", ImportOptions{Name: "vm", State: strings.NewReader("state"), Volumes: []string{"disk"}})
		return err
	}, func(names []string) bool {
		return len(names) == 3 && strings.HasPrefix(names[1], "disk@image-") && names[2] == "vm"
	})
}

func prepareImage(t *testing.T) func(s *Service, _ *memStore) {
	return func(s *Service, _ *memStore) {
		t.Helper()
		if _, err := importKinds(t, s, "ab c", ImportOptions{Name: "vm", State: strings.NewReader("state"), Volumes: []string{"disk"}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeathInChild(t *testing.T) {
	diesAnywhere(t, prepareImage(t), func(s *Service) error {
		_, err := importKinds(t, s, "a dc", ImportOptions{Name: "later", Parent: "vm"})
		return err
	}, func(names []string) bool { return slices.Contains(names, "later") && len(names) == 4 })
}

func TestDeathInFork(t *testing.T) {
	diesAnywhere(t, prepareImage(t), func(s *Service) error {
		_, err := s.Fork(t.Context(), "vm", "twin")
		return err
	}, func(names []string) bool {
		return slices.Contains(names, "twin") && slices.Contains(names, "twin-disk") && len(names) == 5
	})
}

func TestDeathInDelete(t *testing.T) {
	diesAnywhere(t, prepareImage(t), func(s *Service) error {
		return s.Delete(t.Context(), "vm")
	}, func(names []string) bool { return slices.Equal(names, []string{"disk"}) })
}

// A fork that fails takes back what it made, and nothing that somebody else had.
func TestForkDoesNotTakeNames(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	for _, name := range []string{"disk", "twin-disk"} {
		if err := store.Create(t.Context(), name, PageSize, nil); err != nil {
			t.Fatal(err)
		}
	}
	prepareImage(t)(s, store)
	before := store.names()
	if _, err := s.Fork(t.Context(), "vm", "twin"); err == nil {
		t.Error("a fork took the name of a volume")
	}
	if got := store.names(); !slices.Equal(got, before) {
		t.Errorf("a failed fork left %q, want %q", got, before)
	}
}

// TestCancel ends an import in the middle of its device state.
func TestCancel(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	ctx, cancel := context.WithCancel(t.Context())
	src, err := OpenSource(ramFile(t, "ab"), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Import(ctx, src, ImportOptions{Name: "vm", Paused: func(context.Context) error {
		cancel()
		return nil
	}})
	if !errors.Is(err, context.Canceled) || len(store.names()) != 0 {
		t.Errorf("a cancelled import: %v, left %q", err, store.names())
	}
	// The service's end cancels too, and waits.
	started := make(chan struct{})
	ended := make(chan error)
	go func() {
		_, err := s.Import(t.Context(), src, ImportOptions{Name: "vm", Paused: func(ctx context.Context) error {
			close(started)
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		ended <- err
	}()
	<-started
	s.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("an import at the end of the service: %v", err)
	}
	if _, err := s.Import(t.Context(), src, ImportOptions{Name: "vm", Paused: paused}); !errors.Is(err, ErrClosed) {
		t.Errorf("an import after the end of the service: %v", err)
	}
}

// A volume that clients have open, with a name like an import's, is not swept.
func TestSweepLeavesVolumes(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	for name, attributes := range map[string]string{
		stagingPrefix + "x": "", "plain": "", "odd": `{"kind":"something else"}`, "list": `[1]`, "staging": `{"kind":[]}`,
	} {
		if err := store.Create(t.Context(), name, PageSize, []byte(attributes)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if len(store.names()) != 5 {
		t.Errorf("there are %q", store.names())
	}
	if all := s.List(); len(all) != 0 {
		t.Errorf("images %+v", all)
	}
}
