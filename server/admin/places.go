package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Placer tells where the blocks of an image lie on the devices. nil in Config: there is no path for that.
type Placer interface {
	// Places of as many blocks of 4 KiB from off on, in bytes, as lie within the image.
	Places(ctx context.Context, image string, off int64, blocks int) (Places, error)
}

// Places are where blocks lie, for who reads them from the devices; package direct says what it means. On the wire it is
// a line of JSON, and behind it the rows as they are: a page server waits for them.
type Places struct {
	Export  string   `json:"export"`  // how NBD clients see the image described, so that one can tell it from another of its name
	Uses    string   `json:"uses"`    // path of the file that says which places still hold
	Base    uint64   `json:"base"`    // what they are good for
	Devices []string `json:"devices"` // paths by slot; "" for those that are not there
	Rows    []byte   `json:"-"`       // rowBytes for each block
}

const rowBytes = 16

// maxPlaces is how many blocks one answer tells of.
const maxPlaces = 1 << 16

// placeRoutes: who knows the devices' paths could read all of them, so that this is for the admin socket alone.
func (s *Server) placeRoutes(mux *http.ServeMux, private bool) {
	mux.HandleFunc("GET /v1/images/{name}/places", func(w http.ResponseWriter, r *http.Request) {
		p, err := s.placesFor(r, private)
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if json.NewEncoder(w).Encode(p) == nil { // else the client went away
			_, _ = w.Write(p.Rows)
		}
	})
}

func (s *Server) placesFor(r *http.Request, private bool) (Places, error) {
	if !private {
		return Places{}, Errorf(CodeForbidden, "where blocks lie is told through the admin socket only")
	}
	off, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	blocks, err2 := strconv.Atoi(r.URL.Query().Get("blocks"))
	if err != nil || err2 != nil || off < 0 || blocks < 1 || blocks > maxPlaces {
		return Places{}, Errorf(CodeInvalid, "places: it takes offset=BYTES and blocks=N, at most %d", maxPlaces)
	}
	return s.cfg.Placer.Places(r.Context(), r.PathValue("name"), off, blocks)
}

// Places asks where blocks of an image lie.
func (c *Client) Places(ctx context.Context, image string, off int64, blocks int) (p Places, err error) {
	q := url.Values{"offset": {strconv.FormatInt(off, 10)}, "blocks": {strconv.Itoa(blocks)}}
	body, err := c.open(ctx, http.MethodGet, imagePath(image, "/places?"+q.Encode()), nil)
	if err != nil {
		return p, err
	}
	defer body.Close()
	in := bufio.NewReader(io.LimitReader(body, maxReply))
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p)
	}
	if err == nil {
		p.Rows = make([]byte, blocks*rowBytes)
		_, err = io.ReadFull(in, p.Rows)
	}
	if err != nil {
		return Places{}, fmt.Errorf("places of image %s: %w", image, err)
	}
	return p, nil
}
