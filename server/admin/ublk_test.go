package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// fakeDisks is a LocalDisks that remembers what it was asked.
type fakeDisks struct {
	devices []UblkDevice
	deleted []string
}

func (f *fakeDisks) Ublk() ([]UblkDevice, error) { return f.devices, nil }

func (f *fakeDisks) AddUblk(_ context.Context, q AddUblk) (UblkDevice, error) {
	if q.Volume == "gone" {
		return UblkDevice{}, Errorf(CodeNotFound, "volume gone: not found")
	}
	d := UblkDevice{Path: "/dev/ublkb0", Volume: q.Volume, Queues: q.Queues, Depth: q.Depth, ReadOnly: q.ReadOnly}
	f.devices = append(f.devices, d)
	return d, nil
}

func (f *fakeDisks) DeleteUblk(_ context.Context, name string, force bool) error {
	if force {
		name += " with force"
	}
	f.deleted = append(f.deleted, name)
	return nil
}

// TestUblk holds that names with slashes and signs arrive as they were given, and that changes need the right.
func TestUblk(t *testing.T) {
	f := &fakeDisks{}
	s := New(Config{Array: &fakeArray{}, LocalDisks: f})
	srv := httptest.NewServer(s.Handler(Access{Changes: true}))
	defer srv.Close()
	c := NewClient("tcp", strings.TrimPrefix(srv.URL, "http://"), "")
	ctx := t.Context()
	if all, err := c.Ublk(ctx); err != nil || all == nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	d, err := c.AddUblk(ctx, AddUblk{Volume: "web@monday", Queues: 2, Depth: 64, ReadOnly: true})
	if err != nil || d != (UblkDevice{Path: "/dev/ublkb0", Volume: "web@monday", Queues: 2, Depth: 64, ReadOnly: true}) {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := c.AddUblk(ctx, AddUblk{Volume: "gone"}); CodeOf(err) != CodeNotFound {
		t.Error(err)
	}
	for _, force := range []bool{false, true} {
		if err := c.DeleteUblk(ctx, "/dev/ublkb0", force); err != nil {
			t.Error(err)
		}
	}
	if err := c.DeleteUblk(ctx, "web@monday", false); err != nil {
		t.Error(err)
	}
	if want := []string{"/dev/ublkb0", "/dev/ublkb0 with force", "web@monday"}; !slices.Equal(f.deleted, want) {
		t.Errorf("deleted %q", f.deleted)
	}
	w := httptest.NewRecorder()
	s.Handler(Access{}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/ublk", strings.NewReader(`{"volume":"web"}`)))
	if w.Code != http.StatusForbidden {
		t.Errorf("without the right: %d", w.Code)
	}
}
