package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// ErrInterrupted is why the context of a job ended whose client wants it to end.
var ErrInterrupted = errors.New("interrupted")

// jobs are those whose client can have them end, and stays to hear what came of it: who has the VM, say. Those of clients
// that go away end too, unheard.
type jobs struct {
	mu      sync.Mutex
	running map[string]context.CancelCauseFunc // by a name that the client has chosen
}

// endable has a job end when its client says so, if that has named it.
func endable[T any](j *jobs, r *http.Request, work func(context.Context, func(JobProgress)) (T, error)) func(context.Context, func(JobProgress)) (T, error) {
	name := r.URL.Query().Get("job")
	if name == "" {
		return work
	}
	return func(ctx context.Context, progress func(JobProgress)) (T, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		j.mu.Lock()
		if j.running == nil {
			j.running = map[string]context.CancelCauseFunc{}
		}
		j.running[name] = cancel
		j.mu.Unlock()
		defer func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			delete(j.running, name)
		}()
		return work(ctx, progress)
	}
}

// end ends a job.
func (j *jobs) end(r *http.Request) (any, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	cancel, ok := j.running[r.PathValue("job")]
	if !ok {
		return nil, Errorf(CodeNotFound, "job %q not found", r.PathValue("job"))
	}
	cancel(ErrInterrupted)
	return struct{}{}, nil
}

// How long a job may take to obey, and the server to hear of it.
const (
	endPatience  = 20 * time.Second
	sendPatience = 5 * time.Second
)

// runEndable is runJob for a job that is told to end when ctx does, and then says what came of it. A server that does not
// obey is left alone.
func runEndable[T any](ctx context.Context, c *Client, path string, in any, progress func(JobProgress)) (T, error) {
	name := rand.Text()
	inner, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer wg.Done()
		cut(c.endJob(inner, name))
	})
	defer func() {
		if stop() {
			wg.Done()
		}
		cut(nil)
		wg.Wait()
	}()
	return runJob[T](inner, c, path+"?job="+url.QueryEscape(name), in, progress)
}

// endJob has a job end, and waits until it has: until ctx ends.
func (c *Client) endJob(ctx context.Context, name string) error {
	send, cancel := context.WithTimeout(ctx, sendPatience)
	defer cancel()
	if err := c.call(send, http.MethodPost, "/v1/jobs/"+url.PathEscape(name)+"/end", nil, nil); err != nil {
		return err
	}
	late := time.NewTimer(endPatience)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-late.C:
		return errors.New("the server does not end it")
	}
}
