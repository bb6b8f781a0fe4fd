package admin

import (
	"context"
	"testing"
)

// fakeVMs saves and restores in no time.
type fakeVMs struct{ begun chan struct{} }

func (f *fakeVMs) IngestImage(ctx context.Context, q IngestImage, progress func(JobProgress)) (Image, error) {
	if q.Name == "waits" {
		close(f.begun)
		<-ctx.Done()
		return Image{}, Errorf(CodeInternal, "%v; the VM goes on", context.Cause(ctx))
	}
	progress(JobProgress{Step: "receive memory", DoneBytes: 1, TotalBytes: 2})
	return Image{Name: q.Name, Machine: q.Listen + q.QMP}, nil
}

func (f *fakeVMs) RestoreImage(ctx context.Context, name string, q RestoreImage, progress func(JobProgress)) (Restored, error) {
	if name == "waits" {
		progress(JobProgress{Step: "running", Owner: "destination"})
		<-ctx.Done()
		return Restored{}, Owned(context.Cause(ctx), "destination")
	}
	if name == "nothing" {
		return Restored{}, Errorf(CodeNotFound, "image nothing not found")
	}
	return Restored{Owner: q.To, SentBytes: q.BytesPerSecond}, nil
}

func startVMs(t *testing.T, f *fakeVMs, a Access) *Client {
	t.Helper()
	return startWith(t, Config{ImageVMs: f}, a)
}

func TestImageVMs(t *testing.T) {
	f := &fakeVMs{begun: make(chan struct{})}
	c := startVMs(t, f, Access{Changes: true})
	ctx := t.Context()
	steps := 0
	i, err := c.IngestImage(ctx, IngestImage{Name: "vm", Listen: "unix:/x", QMP: "/y"}, func(p JobProgress) { steps++ })
	if err != nil || i.Name != "vm" || i.Machine != "unix:/x/y" || steps != 1 {
		t.Errorf("saved %+v, %v, %d steps", i, err, steps)
	}
	r, err := c.RestoreImage(ctx, "vm", RestoreImage{To: "unix:/z", BytesPerSecond: 5}, nil)
	if err != nil || r.Owner != "unix:/z" || r.SentBytes != 5 {
		t.Errorf("restored %+v, %v", r, err)
	}
	if _, err := c.RestoreImage(ctx, "nothing", RestoreImage{}, nil); CodeOf(err) != CodeNotFound {
		t.Errorf("of nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		<-f.begun
		cancel()
	}()
	if _, err := c.IngestImage(ctx, IngestImage{Name: "waits"}, nil); err == nil || err.Error() != "interrupted; the VM goes on" {
		t.Errorf("a job whose client wants it to end: %v", err)
	}
}

// TestRestoreInterrupted holds that the end of the client's context ends the job, and that the client hears from the
// server who has the VM.
func TestRestoreInterrupted(t *testing.T) {
	c := startVMs(t, &fakeVMs{}, Access{Changes: true})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := c.RestoreImage(ctx, "waits", RestoreImage{}, func(p JobProgress) {
		if p.Owner == "destination" {
			cancel()
		}
	})
	if err == nil || err.Error() != ErrInterrupted.Error() || OwnerOf(err) != "destination" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := c.endJob(t.Context(), "nothing"); CodeOf(err) != CodeNotFound {
		t.Errorf("the end of a job that is not there: %v", err)
	}
}

// TestImageVMsAreForTheOwner holds that nobody but who has the admin socket can make the server listen or connect:
// a token does not do.
func TestImageVMsAreForTheOwner(t *testing.T) {
	c := startVMs(t, &fakeVMs{}, Access{})
	if _, err := c.IngestImage(t.Context(), IngestImage{Name: "vm"}, nil); CodeOf(err) != CodeForbidden {
		t.Errorf("ingest: %v", err)
	}
	if _, err := c.RestoreImage(t.Context(), "vm", RestoreImage{}, nil); CodeOf(err) != CodeForbidden {
		t.Errorf("restore: %v", err)
	}
	if err := c.endJob(t.Context(), "any"); CodeOf(err) != CodeForbidden {
		t.Errorf("end: %v", err)
	}
}
