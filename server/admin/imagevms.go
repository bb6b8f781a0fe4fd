package admin

import (
	"context"
	"net/http"
)

// ImageVMs takes virtual machines from QEMU into images, and resumes them. Errors are made as those of Array.
type ImageVMs interface {
	// IngestImage is the destination of one migrate command of QEMU.
	IngestImage(ctx context.Context, q IngestImage, progress func(JobProgress)) (Image, error)
	// RestoreImage resumes a VM at a QEMU that waits for it, and stays until that has all of its memory.
	RestoreImage(ctx context.Context, name string, q RestoreImage, progress func(JobProgress)) (Restored, error)
}

// IngestImage asks for an image of a VM that QEMU is going to send.
type IngestImage struct {
	Name     string   `json:"name"`
	Listen   string   `json:"listen,omitempty"` // unix:PATH (absolute) or HOST:PORT
	QMP      string   `json:"qmp,omitempty"`    // the path of QEMU's monitor, which is told to send the VM
	Insecure bool     `json:"insecure,omitempty"`
	KeepFree bool     `json:"keep_free,omitempty"`
	Parent   string   `json:"parent,omitempty"`
	Volumes  []string `json:"volumes,omitempty"`
}

// RestoreImage asks for a VM to be resumed.
type RestoreImage struct {
	To              string  `json:"to,omitempty"`  // where QEMU listens: unix:PATH (absolute) or HOST:PORT
	QMP             string  `json:"qmp,omitempty"` // the path of that QEMU's monitor, which is told to listen
	Resume          bool    `json:"resume,omitempty"`
	NoFill          bool    `json:"no_fill,omitempty"`
	WithoutVolumes  bool    `json:"without_volumes,omitempty"`  // of an image that has its disks and is no fork, which is refused otherwise
	RecordSeconds   float64 `json:"record_seconds,omitempty"`   // note for so long what the VM touches, then fill; 0 is not at all
	BytesPerSecond  int64   `json:"bytes_per_second,omitempty"` // of the background; 0 is no limit
	PageBytes       int64   `json:"page_bytes,omitempty"`       // of the memory behind the guest's RAM; 0 is 4096
	PatienceSeconds float64 `json:"patience_seconds,omitempty"` // for a destination that was lost; 0 is no limit
}

// Restored is how a VM was resumed.
type Restored struct {
	Owner        string  `json:"owner"`          // who has the VM: source (nobody runs it) or destination; nobody if that has ended
	MissingPages int64   `json:"missing_pages"`  // that the destination has not got, if the restore was ended with NoFill
	DataPages    int64   `json:"data_pages"`     // sent with data
	ZeroPages    int64   `json:"zero_pages"`     // sent as zeros: free ones too
	SentBytes    int64   `json:"sent_bytes"`     // of the stream
	Demanded     int64   `json:"demanded"`       // requests for pages
	Losses       int     `json:"losses"`         // of the connection
	Prefetched   int     `json:"prefetched"`     // chunks of the working set that were to be sent first
	Recorded     int     `json:"recorded"`       // chunks of the working set that was recorded and kept
	ToRunSeconds float64 `json:"to_run_seconds"` // until the VM could run
	TookSeconds  float64 `json:"took_seconds"`
}

// vmRoutes adds the paths that make the server listen or connect, which are for private listeners.
func (s *Server) vmRoutes(mux *http.ServeMux, private bool) {
	if !private {
		refuse := func(*http.Request) (any, error) {
			return nil, Errorf(CodeForbidden, "virtual machines are saved and restored through the admin socket only")
		}
		handle(mux, "POST /v1/ingest", refuse)
		handle(mux, "POST /v1/images/{name}/restore", refuse)
		handle(mux, "POST /v1/jobs/{job}/end", refuse)
		return
	}
	mux.HandleFunc("POST /v1/ingest", func(w http.ResponseWriter, r *http.Request) {
		var q IngestImage
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := decode(r, &q); err != nil {
			writeError(w, err)
			return
		}
		serveJob(w, r, endable(&s.jobs, r, func(ctx context.Context, progress func(JobProgress)) (Image, error) {
			return s.cfg.ImageVMs.IngestImage(ctx, q, progress)
		}))
	})
	mux.HandleFunc("POST /v1/images/{name}/restore", func(w http.ResponseWriter, r *http.Request) {
		var q RestoreImage
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := decode(r, &q); err != nil {
			writeError(w, err)
			return
		}
		serveJob(w, r, endable(&s.jobs, r, func(ctx context.Context, progress func(JobProgress)) (Restored, error) {
			return s.cfg.ImageVMs.RestoreImage(ctx, r.PathValue("name"), q, progress)
		}))
	})
	handle(mux, "POST /v1/jobs/{job}/end", s.jobs.end)
}

// IngestImage makes an image of the VM that QEMU sends next. When ctx ends, nothing is left of it, and
// the error says what became of the VM.
func (c *Client) IngestImage(ctx context.Context, q IngestImage, progress func(JobProgress)) (Image, error) {
	return runEndable[Image](ctx, c, "/v1/ingest", q, progress)
}

// RestoreImage resumes a VM. When ctx ends after it runs, it waits for what it has not got. The error says then, and at any
// other failure that the server has noticed, who has the VM (OwnerOf).
func (c *Client) RestoreImage(ctx context.Context, name string, q RestoreImage, progress func(JobProgress)) (Restored, error) {
	return runEndable[Restored](ctx, c, imagePath(name, "/restore"), q, progress)
}
