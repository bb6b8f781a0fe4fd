package admin

import (
	"context"
	"net/http"
	"net/url"
)

// Devices changes which devices the array has. nil in Config: there are no
// paths for that.
type Devices interface {
	// AddDevice makes an empty block device or file part of the array. Where
	// size is not 0 the file is made, of so many bytes.
	AddDevice(ctx context.Context, path string, size int64) (Device, error)
	// RemoveDevice moves what a device, by its name or slot, holds to the
	// others, and takes it out. With force it goes even if blocks are lost.
	RemoveDevice(ctx context.Context, device string, force bool) (Device, error)
}

// AddDevice asks for a device to be added.
type AddDevice struct {
	Path      string `json:"path"`       // absolute, on the server's machine
	SizeBytes int64  `json:"size_bytes"` // of a file that is to be made; 0: it is there
}

// deviceRoutes: paths on the server's machine are only for who may change
// everything there; changes says that the listener is private to them.
func (s *Server) deviceRoutes(mux *http.ServeMux, changes bool) {
	d := s.cfg.Devices
	private := func() error {
		if changes {
			return nil
		}
		return Errorf(CodeForbidden, "devices are added and removed through the admin socket only")
	}
	handle(mux, "POST /v1/devices", func(r *http.Request) (any, error) {
		var q AddDevice
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		if err := private(); err != nil {
			return nil, err
		}
		if q.Path == "" || q.Path[0] != '/' || q.SizeBytes < 0 {
			return nil, Errorf(CodeInvalid, "add a device: path %q of %d bytes: it takes an absolute path", q.Path, q.SizeBytes)
		}
		return d.AddDevice(r.Context(), q.Path, q.SizeBytes)
	})
	handle(mux, "DELETE /v1/devices/{device}", func(r *http.Request) (any, error) {
		if err := private(); err != nil {
			return nil, err
		}
		device, force := r.PathValue("device"), r.URL.Query().Get("force") == "true"
		return untilStop(s, r, "remove device "+device, func(ctx context.Context) (Device, error) {
			return d.RemoveDevice(ctx, device, force)
		})
	})
}

// AddDevice adds a device to the array.
func (c *Client) AddDevice(ctx context.Context, q AddDevice) (Device, error) {
	return post[Device](ctx, c, "/v1/devices", q)
}

// RemoveDevice takes a device out of the array. It takes as long as moving what
// is on it; if ctx ends before that the device stays.
func (c *Client) RemoveDevice(ctx context.Context, device string, force bool) (d Device, err error) {
	path := "/v1/devices/" + url.PathEscape(device)
	if force {
		path += "?force=true"
	}
	err = c.call(ctx, http.MethodDelete, path, nil, &d)
	return d, err
}
