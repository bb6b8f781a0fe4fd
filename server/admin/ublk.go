package admin

import (
	"context"
	"net/http"
	"net/url"
)

// LocalDisks are the volumes that the server makes disks of its own machine.
type LocalDisks interface {
	Ublk() ([]UblkDevice, error)
	AddUblk(ctx context.Context, q AddUblk) (UblkDevice, error)
	// DeleteUblk removes a device, named by its path or by what it serves. One that is mounted is removed only
	// with force.
	DeleteUblk(ctx context.Context, name string, force bool) error
}

// UblkDevice is a block device of the server's machine that serves a volume.
type UblkDevice struct {
	ID        int    `json:"id"`
	Path      string `json:"path"`
	Volume    string `json:"volume"` // or VOLUME@SNAPSHOT; "" if it is no longer there
	SizeBytes int64  `json:"size_bytes"`
	Queues    int    `json:"queues"`
	Depth     int    `json:"depth"` // of each queue
	ReadOnly  bool   `json:"read_only"`
	// State is "live"; "waiting" for a server to take it over; "failed", which is no longer served and waits to be
	// removed; or "dead".
	State   string `json:"state"`
	InUse   bool   `json:"in_use"`            // mounted, or held by something else
	Problem string `json:"problem,omitempty"` // why it is not served by this server
}

// AddUblk asks for a device. Queues and Depth may be 0 for the defaults.
type AddUblk struct {
	Volume   string `json:"volume"` // or VOLUME@SNAPSHOT
	Queues   int    `json:"queues,omitempty"`
	Depth    int    `json:"depth,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

func (s *Server) ublkRoutes(mux *http.ServeMux) {
	l := s.cfg.LocalDisks
	handle(mux, "GET /v1/ublk", func(*http.Request) (any, error) {
		all, err := l.Ublk()
		return list(all), err
	})
	handle(mux, "POST /v1/ublk", func(r *http.Request) (any, error) {
		var q AddUblk
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return l.AddUblk(r.Context(), q)
	})
	handle(mux, "DELETE /v1/ublk/{device}", func(r *http.Request) (any, error) {
		return done{true}, l.DeleteUblk(r.Context(), r.PathValue("device"), r.URL.Query().Get("force") == "true")
	})
}

// Ublk lists the block devices that serve volumes.
func (c *Client) Ublk(ctx context.Context) ([]UblkDevice, error) {
	return get[[]UblkDevice](ctx, c, "/v1/ublk")
}

// AddUblk makes a block device of a volume.
func (c *Client) AddUblk(ctx context.Context, q AddUblk) (UblkDevice, error) {
	return post[UblkDevice](ctx, c, "/v1/ublk", q)
}

// DeleteUblk removes a block device, named by its path or by what it serves.
func (c *Client) DeleteUblk(ctx context.Context, name string, force bool) error {
	path := "/v1/ublk/" + url.PathEscape(name)
	if force {
		path += "?force=true"
	}
	return c.call(ctx, http.MethodDelete, path, nil, nil)
}
