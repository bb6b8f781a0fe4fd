package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A job is long work that a client waits for: the answer is a line of JSON for each sign of progress, and one with
// the result or the error. The work ends when the client goes away.
type jobLine[T any] struct {
	Progress *JobProgress `json:"progress,omitempty"`
	Result   *T           `json:"result,omitempty"`
	Error    *Error       `json:"error,omitempty"`
}

// maxJobLine bounds one line, in bytes.
const maxJobLine = 1 << 20

// serveJob runs work and answers with its progress and result.
func serveJob[T any](w http.ResponseWriter, r *http.Request, work func(ctx context.Context, progress func(JobProgress)) (T, error)) {
	out := http.NewResponseController(w)
	// The deadline is for requests; it would cut the work short.
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	say := func(line jobLine[T]) {
		// Where the client has gone, the request's context tells the work.
		if enc.Encode(line) == nil {
			_ = out.Flush()
		}
	}
	result, err := work(r.Context(), func(p JobProgress) { say(jobLine[T]{Progress: &p}) })
	if err != nil {
		say(jobLine[T]{Error: &Error{Code: CodeOf(err), Message: err.Error(), Owner: OwnerOf(err)}})
		return
	}
	say(jobLine[T]{Result: &result})
}

// runJob asks for a job and waits for its result.
func runJob[T any](ctx context.Context, c *Client, path string, in any, progress func(JobProgress)) (result T, err error) {
	resp, err := c.send(ctx, http.MethodPost, path, in)
	if err != nil && !errors.Is(err, ErrNoServer) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", err, ErrStopped) // it has the request, and nobody knows how far it came
	}
	if err != nil {
		return result, err
	}
	body, err := c.bodyOf(resp)
	if err != nil {
		return result, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxJobLine)
	for lines.Scan() {
		var line jobLine[T]
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return result, fmt.Errorf("server at %s: unreadable answer: %w", c.where, err)
		}
		switch {
		case line.Error != nil:
			return result, line.Error
		case line.Result != nil:
			return *line.Result, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	if err = lines.Err(); err == nil {
		err = io.ErrUnexpectedEOF
	}
	return result, fmt.Errorf("server at %s: %w: %w", c.where, ErrStopped, err)
}

// open sends in (unless nil) as JSON and returns the body of the answer, if the answer is not an error.
func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	return c.bodyOf(resp)
}

func (c *Client) bodyOf(resp *http.Response) (io.ReadCloser, error) {
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err == nil {
		err = c.replyError(resp.Status, text)
	}
	return nil, errors.Join(err, resp.Body.Close())
}
