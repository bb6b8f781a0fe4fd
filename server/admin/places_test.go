package admin

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"testing"
)

// fakePlacer tells what it was asked.
type fakePlacer struct{}

func (fakePlacer) Places(_ context.Context, image string, off int64, blocks int) (Places, error) {
	if image == "nothing" {
		return Places{}, Errorf(CodeNotFound, "image nothing not found")
	}
	return Places{Export: image, Uses: "/uses", Base: 1<<64 - 1, Devices: []string{"", "/dev1"}, Rows: bytes.Repeat([]byte{byte(off), byte(blocks), '\n', 0xff}, 4*blocks)}, nil
}

func TestPlaces(t *testing.T) {
	for _, private := range []bool{true, false} {
		h := New(Config{Array: &fakeArray{}, Placer: fakePlacer{}}).HTTP(Access{Changes: private})
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- h.Serve(l) }()
		c := NewClient("unix", path, "")
		got, err := c.Places(t.Context(), "a b", 8, 4)
		want := Places{Export: "a b", Uses: "/uses", Base: 1<<64 - 1, Devices: []string{"", "/dev1"}, Rows: bytes.Repeat([]byte{8, 4, '\n', 0xff}, 16)}
		switch {
		case private && (err != nil || !reflect.DeepEqual(got, want)):
			t.Errorf("got %+v, %v", got, err)
		case !private && CodeOf(err) != CodeForbidden:
			t.Errorf("told where others may ask: %+v, %v", got, err)
		}
		for _, bad := range []struct {
			image  string
			off    int64
			blocks int
			code   Code
		}{{"nothing", 0, 1, CodeNotFound}, {"x", -1, 1, CodeInvalid}, {"x", 0, 0, CodeInvalid}, {"x", 0, maxPlaces + 1, CodeInvalid}} {
			if _, err := c.Places(t.Context(), bad.image, bad.off, bad.blocks); private && CodeOf(err) != bad.code {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		h.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	}
}
