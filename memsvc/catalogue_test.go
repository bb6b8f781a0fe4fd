package memsvc

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCatalogue(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	ctx := t.Context()
	if err := store.Create(ctx, "disk", PageSize, nil); err != nil {
		t.Fatal(err)
	}
	prepareImage(t)(s, store)
	for _, test := range []struct {
		what string
		err  error
		want error
	}{
		{"import over a volume", func() error { _, err := importKinds(t, s, "a", ImportOptions{Name: "disk"}); return err }(), ErrExists},
		{"import over an image", func() error { _, err := importKinds(t, s, "a", ImportOptions{Name: "vm"}); return err }(), ErrExists},
		{"import with a staging name", func() error { _, err := importKinds(t, s, "a", ImportOptions{Name: "importing.a"}); return err }(), ErrInvalid},
		{"import without a name", func() error { _, err := importKinds(t, s, "a", ImportOptions{}); return err }(), ErrInvalid},
		{"an image as a volume", func() error {
			_, err := importKinds(t, s, "a", ImportOptions{Name: "x", Volumes: []string{"vm"}})
			return err
		}(), ErrInvalid},
		{"a volume twice", func() error {
			_, err := importKinds(t, s, "a", ImportOptions{Name: "x", Volumes: []string{"disk", "disk"}})
			return err
		}(), ErrInvalid},
		{"get a volume", func() error { _, err := s.Get("disk"); return err }(), ErrNotFound},
		{"get nothing", func() error { _, err := s.Get("nothing"); return err }(), ErrNotFound},
		{"rename to a volume", s.Rename(ctx, "vm", "disk"), ErrExists},
		{"rename a volume", s.Rename(ctx, "disk", "x"), ErrNotFound},
		{"rename to a staging name", s.Rename(ctx, "vm", "importing.x"), ErrInvalid},
		{"delete a volume", s.Delete(ctx, "disk"), ErrNotFound},
		{"fork a volume", func() error { _, err := s.Fork(ctx, "disk", "x"); return err }(), ErrNotFound},
		{"fork over a volume", func() error { _, err := s.Fork(ctx, "vm", "disk"); return err }(), ErrExists},
		{"a volume as parent", func() error {
			_, err := importKinds(t, s, "ab c", ImportOptions{Name: "x", Parent: "disk"})
			return err
		}(), ErrNotFound},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, test.err, test.want)
		}
	}
	if err := s.Rename(ctx, "vm", "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(ctx, "web", "twin"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(ctx, "twin", "third"); !errors.Is(err, ErrInvalid) {
		t.Errorf("the fork of a fork: %v", err)
	}
	all := s.List()
	if len(all) != 2 || all[0].Name != "twin" || !all[0].Writable || all[0].Manifest.Parent != "web" || all[1].Name != "web" || all[1].Writable {
		t.Errorf("images %+v", all)
	}
	snapshot := "disk@" + all[1].Manifest.Volumes[0].Snapshot
	for name, holder := range map[string]string{snapshot: "web", "disk": "web", "disk@other": "", "twin-disk": ""} {
		if got := s.Holder(name); got != holder {
			t.Errorf("%s is held by %q, want %q", name, got, holder)
		}
	}
	img, err := s.Open("web", "a test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "web"); !errors.Is(err, ErrInUse) {
		t.Errorf("delete of an open image: %v", err)
	}
	img.Close()
	if err := s.Delete(ctx, "web"); err != nil {
		t.Error(err)
	}
	checkImage(t, s, "twin", "ab c")
	if err := s.Delete(ctx, "twin"); err != nil {
		t.Error(err)
	}
	if got := store.names(); !slices.Equal(got, []string{"disk", "twin-disk"}) {
		t.Errorf("in the end there are %q", got)
	}
}

// A service on a damaged store says so and does no harm.
func TestDamagedAttributes(t *testing.T) {
	store := newMemStore()
	s := newService(t, store, nil)
	o := ImportOptions{Name: "vm", State: bytes.NewReader([]byte("state"))}
	if _, err := importKinds(t, s, "ab", o); err != nil {
		t.Fatal(err)
	}
	good := string(store.volumes["vm"].info.Attributes)
	for _, bad := range []string{
		strings.Replace(good, `"size":8192`, `"size":8193`, 1),
		strings.Replace(good, `"size":8192`, `"size":12288`, 1),
		strings.Replace(good, `"total":2`, `"total":3`, 1),
		strings.Replace(good, `"version":1`, `"version":2`, 1),
		strings.Replace(good, `"length":5`, `"length":50000`, 1),
		strings.Replace(good, `"offset":8192`, `"offset":0`, 1),
		strings.Replace(good, `"blocks":[`, `"blocks":[{},`, 1),
		`{"kind":"image","version":1}`,
		`{"kind":"image","version":1,"manifest":[]}`,
	} {
		if bad == good {
			t.Fatalf("nothing was changed in %s", good)
		}
		store.volumes["vm"].info.Attributes = []byte(bad)
		if _, err := s.Get("vm"); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
		if _, err := s.Open("vm", "a test"); err == nil {
			t.Errorf("%s: opened", bad)
		}
		if len(s.List()) != 0 {
			t.Errorf("%s: listed", bad)
		}
	}
	if store.volumes["vm"].open != 0 {
		t.Error("a failed open left the volume open")
	}
	if err := s.Delete(t.Context(), "vm"); err != nil || len(store.names()) != 0 {
		t.Errorf("delete: %v, there are %q", err, store.names())
	}
}

func FuzzAttributes(f *testing.F) {
	store := newMemStore()
	s := New(Config{Store: store})
	defer s.Close()
	f.Add([]byte(`{"kind":"staging","version":1,"staging":{"image":"vm","volumes":[{"name":"disk","snapshot":"s"}]}}`))
	f.Add([]byte(`{"kind":"image","version":1,"manifest":{"source":"raw","blocks":[{"name":"ram","offset":0,"size":4096,"ranges":[{"gpa":0,"size":4096}]}],` +
		`"pages":{"total":1,"in_use":1,"free":0,"zero":0}},"working_set":{"chunk_bytes":4096,"count":1,"order":"YgAAAAD//w=="}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if Classify("vm", raw) != ClassImage {
			return
		}
		store.volumes["vm"] = &memVolume{info: VolumeInfo{Name: "vm", Size: 1 << 40, Attributes: raw, Sealed: true}}
		info, err := s.Get("vm")
		if err != nil {
			return
		}
		if info.Manifest.RAM() <= 0 || info.Manifest.State.Offset+info.Manifest.State.Length > 1<<40 {
			t.Errorf("accepted %+v", info.Manifest)
		}
		if w, err := s.WorkingSet("vm"); err == nil {
			if err := w.validate(info.Manifest.RAM()); err != nil {
				t.Errorf("accepted %v", err)
			}
		}
	})
}
