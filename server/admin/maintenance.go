package admin

import (
	"context"
	"net/http"
)

// Maintainer keeps the copies of blocks whole.
type Maintainer interface {
	// Scrub reads and verifies everything that is mapped and repairs what has
	// another copy, at so many bytes a second, 0 for no bound.
	Scrub(ctx context.Context, bytesPerSecond int64) (ScrubReport, error)
	Work() Work
}

// ScrubRequest asks for a scrub.
type ScrubRequest struct {
	BytesPerSecond int64 `json:"bytes_per_second"` // 0 for no bound
}

// ScrubReport is what a scrub found. It counts copies of blocks.
type ScrubReport struct {
	Blocks   int64    `json:"blocks"`   // that were read
	Bad      int64    `json:"bad"`      // of those, damaged or unreadable
	Repaired int64    `json:"repaired"` // of those, written anew from the other copy
	Lost     int64    `json:"lost"`     // that have no good copy
	Missing  int64    `json:"missing"`  // on absent devices
	Problems []string `json:"problems"` // the first of what is lost
}

// Work is what goes on in the background.
type Work struct {
	Rebuild Progress `json:"rebuild"` // of second copies
	Scrub   Progress `json:"scrub"`
	Removal Removal  `json:"removal"` // of a device
}

// Removal of a device that is under way.
type Removal struct {
	Running   bool  `json:"running"`
	Slot      int   `json:"slot"`
	DoneBytes int64 `json:"done_bytes"` // moved elsewhere
	Bytes     int64 `json:"bytes"`      // to move in all
}

// Progress of one kind of work, or of the last run of it.
type Progress struct {
	Running bool  `json:"running"`
	Pages   int64 `json:"pages"` // of the map, done
	Total   int64 `json:"pages_total"`
	Blocks  int64 `json:"blocks"` // written anew, or read
}

func (s *Server) maintenanceRoutes(mux *http.ServeMux) {
	m := s.cfg.Maintainer
	handle(mux, "GET /v1/work", func(*http.Request) (any, error) { return m.Work(), nil })
	handle(mux, "POST /v1/scrub", func(r *http.Request) (any, error) {
		var q ScrubRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		if q.BytesPerSecond < 0 {
			return nil, Errorf(CodeInvalid, "scrub: %d bytes a second", q.BytesPerSecond)
		}
		return untilStop(s, r, "scrub", func(ctx context.Context) (ScrubReport, error) { return m.Scrub(ctx, q.BytesPerSecond) })
	})
}

// Scrub reads and repairs everything; it takes as long as that does.
func (c *Client) Scrub(ctx context.Context, bytesPerSecond int64) (ScrubReport, error) {
	return post[ScrubReport](ctx, c, "/v1/scrub", ScrubRequest{bytesPerSecond})
}

// Work returns what goes on in the background.
func (c *Client) Work(ctx context.Context) (Work, error) { return get[Work](ctx, c, "/v1/work") }
