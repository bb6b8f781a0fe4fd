package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

func imagePath(name string, more string) string { return "/v1/images/" + url.PathEscape(name) + more }

// Images in name order.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	return get[[]Image](ctx, c, "/v1/images")
}

// Image by name.
func (c *Client) Image(ctx context.Context, name string) (Image, error) {
	return get[Image](ctx, c, imagePath(name, ""))
}

// RenameImage gives an image another name.
func (c *Client) RenameImage(ctx context.Context, from, to string) (Image, error) {
	return post[Image](ctx, c, imagePath(from, "/rename"), Named{to})
}

// DeleteImage deletes an image with the snapshots that were taken for it.
func (c *Client) DeleteImage(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, imagePath(name, ""), nil, nil)
}

// ForkImage makes a writable clone of an image.
func (c *Client) ForkImage(ctx context.Context, image, name string) (Image, error) {
	return post[Image](ctx, c, imagePath(image, "/fork"), Named{name})
}

// ImportImage makes an image of files on the server's machine. When ctx ends, nothing is left of it.
func (c *Client) ImportImage(ctx context.Context, q ImportImage, progress func(JobProgress)) (Image, error) {
	return runJob[Image](ctx, c, "/v1/images", q, progress)
}

// ExportImage reads the memory of an image; see ReadImageStream.
func (c *Client) ExportImage(ctx context.Context, name string, begin func(size int64) error, run func(off, n int64, from io.Reader) error) error {
	body, err := c.open(ctx, http.MethodGet, imagePath(name, "/memory"), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	return ReadImageStream(body, begin, run)
}

// ImageState copies the VMM's device state of an image to w.
func (c *Client) ImageState(ctx context.Context, name string, w io.Writer) (n int64, err error) {
	body, err := c.open(ctx, http.MethodGet, imagePath(name, "/state"), nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if n, err = io.Copy(w, body); err != nil {
		err = fmt.Errorf("device state of image %s: %w", name, err)
	}
	return n, err
}

// WorkingSet of an image.
func (c *Client) WorkingSet(ctx context.Context, name string) (WorkingSet, error) {
	return get[WorkingSet](ctx, c, imagePath(name, "/working-set"))
}

// SetWorkingSet replaces the working set of an image and returns how many chunks, from the first on, there was room
// for.
func (c *Client) SetWorkingSet(ctx context.Context, name string, w WorkingSet) (kept int, err error) {
	w.Chunks = w.Chunks[:min(len(w.Chunks), MaxWorkingSetChunks)]
	var got WorkingSet
	err = c.call(ctx, http.MethodPut, imagePath(name, "/working-set"), w, &got)
	return got.Count, err
}
