package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxReply bounds what a client reads of an answer, in bytes.
const maxReply = 64 << 20

// Client talks to a server. Its errors are *Error where the server answered, and Is ErrNoServer where nobody did.
type Client struct {
	// Late, if not nil, is called once for a request that was not answered within LateAfter; the request goes on. It is called
	// from a goroutine of its own.
	Late      func(where string)
	LateAfter time.Duration

	where string
	base  string
	token string
	http  *http.Client
}

// NewClient makes a client of the server at an address: network is "unix" or "tcp".
func NewClient(network, address, token string) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	where, base := address, "http://"+address
	if network == "unix" {
		where, base = "unix:"+address, "http://lsad"
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		DisableKeepAlives: true, // a command asks once or twice
	}
	return &Client{where: where, base: base, token: token, http: &http.Client{Transport: transport}}
}

// send sends in (unless nil) as JSON.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.Late != nil {
		defer time.AfterFunc(c.LateAfter, func() { c.Late(c.where) }).Stop()
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	return resp, nil
}

// call sends in (unless nil) as JSON and reads the answer into out (unless nil).
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fmt.Errorf("server at %s: answer cut short: %w", c.where, err)
	}
	if resp.StatusCode != http.StatusOK {
		return c.replyError(resp.Status, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("server at %s: unreadable answer: %w", c.where, err)
	}
	return nil
}

func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w at %s: %w", ErrNoServer, c.where, op.Err)
	}
	return fmt.Errorf("server at %s: %w", c.where, err)
}

func (c *Client) replyError(status string, text []byte) error {
	var body errorBody
	if err := json.Unmarshal(text, &body); err != nil || body.Error.Message == "" {
		return fmt.Errorf("server at %s: %s", c.where, status)
	}
	return &body.Error
}

func volumePath(name string, more ...string) string {
	p := "/v1/volumes/" + url.PathEscape(name)
	for _, m := range more {
		p += "/" + url.PathEscape(m)
	}
	return p
}

// get is a call that asks and changes nothing.
func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.call(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

// post is a call that changes something and returns what it is now.
func post[T any](ctx context.Context, c *Client, path string, in any) (v T, err error) {
	err = c.call(ctx, http.MethodPost, path, in, &v)
	return v, err
}

// Status of the server and its array.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Devices of the array.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	return get[[]Device](ctx, c, "/v1/devices")
}

// Connections of NBD clients.
func (c *Client) Connections(ctx context.Context) ([]Connection, error) {
	return get[[]Connection](ctx, c, "/v1/connections")
}

// Volumes in name order.
func (c *Client) Volumes(ctx context.Context) ([]Volume, error) {
	return get[[]Volume](ctx, c, "/v1/volumes")
}

// Volume by name.
func (c *Client) Volume(ctx context.Context, name string) (Volume, error) {
	return get[Volume](ctx, c, volumePath(name))
}

// CreateVolume makes a volume of size bytes with so many copies of each block.
func (c *Client) CreateVolume(ctx context.Context, name string, size int64, copies int) (Volume, error) {
	return post[Volume](ctx, c, "/v1/volumes", CreateVolume{name, size, copies})
}

// ResizeVolume changes the size, in bytes.
func (c *Client) ResizeVolume(ctx context.Context, name string, size int64, force bool) (Volume, error) {
	return post[Volume](ctx, c, volumePath(name, "resize"), ResizeVolume{size, force})
}

// RenameVolume gives a volume another name.
func (c *Client) RenameVolume(ctx context.Context, from, to string) (Volume, error) {
	return post[Volume](ctx, c, volumePath(from, "rename"), Named{to})
}

// DeleteVolume deletes a volume with its snapshots.
func (c *Client) DeleteVolume(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, volumePath(name), nil, nil)
}

// DeleteSnapshot deletes one snapshot.
func (c *Client) DeleteSnapshot(ctx context.Context, volume, snapshot string) error {
	return c.call(ctx, http.MethodDelete, volumePath(volume, "snapshots", snapshot), nil, nil)
}

// Snapshot takes a snapshot.
func (c *Client) Snapshot(ctx context.Context, volume, snapshot string) (Volume, error) {
	return post[Volume](ctx, c, volumePath(volume, "snapshots"), Named{snapshot})
}

// Clone makes a volume of a snapshot.
func (c *Client) Clone(ctx context.Context, volume, snapshot, name string) (Volume, error) {
	return post[Volume](ctx, c, volumePath(volume, "snapshots", snapshot, "clone"), Named{name})
}

// Revert makes a volume what its snapshot is.
func (c *Client) Revert(ctx context.Context, volume, snapshot string) (Volume, error) {
	return post[Volume](ctx, c, volumePath(volume, "snapshots", snapshot, "revert"), nil)
}

// GCStatus is the garbage collection of every device.
func (c *Client) GCStatus(ctx context.Context) ([]GCDevice, error) {
	return get[[]GCDevice](ctx, c, "/v1/gc")
}

// GCRun collects now: one device, or all ("").
func (c *Client) GCRun(ctx context.Context, device string) error {
	return c.call(ctx, http.MethodPost, "/v1/gc/run", GCRunRequest{device}, nil)
}

// GCSet changes settings.
func (c *Client) GCSet(ctx context.Context, change GCChange) (all []GCDevice, err error) {
	err = c.call(ctx, http.MethodPatch, "/v1/gc", change, &all)
	return all, err
}
