package memsvc

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestWorkingSet(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	if _, err := importKinds(t, s, strings.Repeat(" ", 5000), ImportOptions{Name: "vm"}); err != nil {
		t.Fatal(err)
	}
	if w, err := s.WorkingSet("vm"); err != nil || len(w.Chunks) != 0 {
		t.Errorf("before any was set: %+v, %v", w, err)
	}
	order := []int64{7, 3, 4, 5, 4999, 0}
	if kept, err := s.SetWorkingSet(t.Context(), "vm", &WorkingSet{PageSize, order}); err != nil || kept != len(order) {
		t.Errorf("kept %d: %v", kept, err)
	}
	if w, err := s.WorkingSet("vm"); err != nil || w.ChunkBytes != PageSize || !slices.Equal(w.Chunks, order) {
		t.Errorf("%+v: %v", w, err)
	}
	if info, err := s.Fork(t.Context(), "vm", "twin"); err != nil || info.WorkingSet.Chunks != len(order) {
		t.Errorf("the fork has %+v: %v", info.WorkingSet, err)
	}
	again := []int64{9, 8}
	if _, err := s.SetWorkingSet(t.Context(), "twin", &WorkingSet{PageSize, again}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"twin", "vm"} {
		if w, err := s.WorkingSet(name); err != nil || !slices.Equal(w.Chunks, again) {
			t.Errorf("of %s, after a fork recorded it: %+v, %v", name, w, err)
		}
	}
	if err := s.Rename(t.Context(), "vm", "old"); err != nil {
		t.Fatal(err)
	}
	if kept, err := s.SetWorkingSet(t.Context(), "twin", &WorkingSet{PageSize, order}); err != nil || kept != len(order) {
		t.Errorf("of the fork of an image that is elsewhere: kept %d, %v", kept, err)
	}
	if w, err := s.WorkingSet("old"); err != nil || !slices.Equal(w.Chunks, again) {
		t.Errorf("%+v, %v", w, err)
	}
	if err := s.Rename(t.Context(), "old", "vm"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []WorkingSet{
		{PageSize, []int64{5000}}, {PageSize, []int64{-1}}, {PageSize, []int64{1, 2, 1}}, {PageSize + 1, []int64{1}}, {0, []int64{1}}, {PageSize, make([]int64, maxChunks+1)},
	} {
		if _, err := s.SetWorkingSet(t.Context(), "vm", &bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("working set of %d bytes, %d chunks: %v", bad.ChunkBytes, len(bad.Chunks), err)
		}
	}
	if _, err := s.SetWorkingSet(t.Context(), "vm", &WorkingSet{}); err != nil {
		t.Error(err)
	}
	if w, err := s.WorkingSet("vm"); err != nil || len(w.Chunks) != 0 {
		t.Errorf("after it was removed: %+v, %v", w, err)
	}
}

// A working set of more chunks than there is room for loses the last ones.
func TestLargeWorkingSet(t *testing.T) {
	const n = 60000
	w := &WorkingSet{ChunkBytes: PageSize}
	for _, c := range rand.New(rand.NewPCG(1, 1)).Perm(65536)[:n] {
		w.Chunks = append(w.Chunks, int64(c)) // far from one another, as the worst guest would touch them
	}
	stored, err := w.store()
	if err != nil || stored.Count < 5000 || stored.Count >= n || len(stored.Order) > maxOrder || len(stored.Order) < maxOrder*9/10 {
		t.Fatalf("%d chunks in %d bytes: %v", stored.Count, len(stored.Order), err)
	}
	t.Logf("%d chunks fit", stored.Count)
	got, err := stored.load(65536 * PageSize)
	if err != nil || !slices.Equal(got.Chunks, w.Chunks[:stored.Count]) {
		t.Errorf("unpacked %v", err)
	}
}
