package admin

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
)

type fakeMaintainer struct{ rate int64 }

func (f *fakeMaintainer) Scrub(_ context.Context, rate int64) (ScrubReport, error) {
	f.rate = rate
	return ScrubReport{Blocks: 7, Problems: []string{"x"}}, nil
}

func (f *fakeMaintainer) Work() Work {
	return Work{Rebuild: Progress{Running: true, Pages: 2, Total: 3}}
}

func TestMaintenance(t *testing.T) {
	m := &fakeMaintainer{}
	srv := httptest.NewServer(New(Config{Array: &fakeArray{}, Maintainer: m}).Handler(Access{Changes: true}))
	defer srv.Close()
	c := NewClient("tcp", srv.Listener.Addr().String(), "")
	r, err := c.Scrub(context.Background(), 4096)
	if err != nil || r.Blocks != 7 || len(r.Problems) != 1 || m.rate != 4096 {
		t.Errorf("%+v, %v, rate %d", r, err, m.rate)
	}
	var coded *Error
	if _, err := c.Scrub(context.Background(), -1); !errors.As(err, &coded) || coded.Code != CodeInvalid {
		t.Errorf("a negative rate: %v", err)
	}
	w, err := c.Work(context.Background())
	if err != nil || !w.Rebuild.Running || w.Rebuild.Total != 3 || w.Scrub.Running {
		t.Errorf("%+v, %v", w, err)
	}
}
