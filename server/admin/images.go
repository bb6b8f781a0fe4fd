package admin

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Images are the images of VM memory in an array. Errors are made as those of Array.
type Images interface {
	Images() []Image
	Image(name string) (Image, error)
	RenameImage(ctx context.Context, from, to string) error
	DeleteImage(ctx context.Context, name string) error
	ForkImage(ctx context.Context, image, name string) error
	// ImportImage reads files of this machine. It calls progress now and then, from the caller's goroutine.
	ImportImage(ctx context.Context, q ImportImage, progress func(JobProgress)) (Image, error)
	// ExportImage writes the memory in the format of ImageStreamWriter. Where w has a method SetWriteDeadline, that
	// ends a write that waits.
	ExportImage(ctx context.Context, name string, w io.Writer) error
	// ImageState writes the VMM's device state.
	ImageState(ctx context.Context, name string, w io.Writer) error
	WorkingSet(name string) (WorkingSet, error)
	// SetWorkingSet returns how many chunks were kept.
	SetWorkingSet(ctx context.Context, name string, w WorkingSet) (int, error)
	ImageCounters() ImageCounters
}

// Image is one image of a VM's memory, or a fork.
type Image struct {
	Name        string        `json:"name"`
	Created     time.Time     `json:"created"`
	Writable    bool          `json:"writable"`          // a fork
	Source      string        `json:"source"`            // raw, elf or qemu
	Machine     string        `json:"machine,omitempty"` // as the VMM calls it
	Kernel      string        `json:"kernel,omitempty"`
	RAMBytes    int64         `json:"ram_bytes"`
	StateBytes  int64         `json:"state_bytes"`  // of the VMM
	StoredBytes int64         `json:"stored_bytes"` // that it takes by itself
	Parent      string        `json:"parent,omitempty"`
	PageBytes   int64         `json:"page_bytes"`
	Pages       ImagePages    `json:"pages"`
	FreeElided  bool          `json:"free_elided"`
	Why         string        `json:"why"` // free pages were elided, or not
	Blocks      []ImageBlock  `json:"blocks"`
	Volumes     []ImageVolume `json:"volumes"`
	Steps       []ImageStep   `json:"steps"`
	WorkingSet  WorkingSet    `json:"working_set"` // without the order
	Clients     []string      `json:"clients"`
}

// ImagePages say where the guest's pages went: in use, free and zero ones add up to all.
type ImagePages struct {
	Total  int64 `json:"total"`
	InUse  int64 `json:"in_use"`
	Free   int64 `json:"free"`
	Zero   int64 `json:"zero"`
	Shared int64 `json:"shared"` // of those in use: with the parent
}

// ImageBlock is a RAM block.
type ImageBlock struct {
	Name        string       `json:"name"`
	OffsetBytes int64        `json:"offset_bytes"` // in the image
	SizeBytes   int64        `json:"size_bytes"`
	PageBytes   int64        `json:"page_bytes"` // of the memory that backed it
	Ranges      []ImageRange `json:"ranges"`
}

// ImageRange is where a part of a block is in the guest.
type ImageRange struct {
	GPA       uint64 `json:"gpa"`
	SizeBytes int64  `json:"size_bytes"`
}

// ImageVolume is a volume of the VM.
type ImageVolume struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"`
	Clone    string `json:"clone,omitempty"`   // that belongs to this fork
	Written  bool   `json:"written,omitempty"` // the clone was written to since it was made
}

// ImageStep is a step of the import.
type ImageStep struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// ImportImage asks for an import. Paths are absolute, on the server's machine.
type ImportImage struct {
	Name     string   `json:"name"`
	File     string   `json:"file"`
	State    string   `json:"state,omitempty"`
	Layout   string   `json:"layout,omitempty"`
	KeepFree bool     `json:"keep_free,omitempty"`
	Parent   string   `json:"parent,omitempty"`
	Volumes  []string `json:"volumes,omitempty"`
	// One of these says that the VM is paused: the path of QEMU's monitor, which is asked, or the user's word.
	QMP    string `json:"qmp,omitempty"`
	Paused bool   `json:"paused,omitempty"`
}

// JobProgress is how far a job is.
type JobProgress struct {
	Step       string `json:"step"`
	DoneBytes  int64  `json:"done_bytes"`      // of the step
	TotalBytes int64  `json:"total_bytes"`     // 0 where that is not known
	Owner      string `json:"owner,omitempty"` // of a VM that is restored: source or destination
	Ran        bool   `json:"ran,omitempty"`   // the destination has shown that it runs that VM
}

// WorkingSet is the order in which chunks of an image are first touched after a restore.
type WorkingSet struct {
	ChunkBytes int64   `json:"chunk_bytes"`
	Count      int     `json:"count"`
	Chunks     []int64 `json:"chunks,omitempty"` // numbers of chunks
}

// ImageCounters count since the server started, but for Active.
type ImageCounters struct {
	Imports, Failed, Active           int64
	StoredBytes, FreeBytes, ZeroBytes int64
}

// MaxWorkingSetChunks is how many chunks a working set may have. A Client sends no more.
const MaxWorkingSetChunks = 1 << 16

// maxWorkingSet bounds the JSON of a working set, in bytes.
const maxWorkingSet = 1 << 20

// imageRoutes adds the paths of images. What reads the server's files, or a VM's memory, is for the listeners alone
// that are private to the array's owner.
func (s *Server) imageRoutes(mux *http.ServeMux, private bool) {
	i := s.cfg.Images
	handle(mux, "GET /v1/images", func(*http.Request) (any, error) { return list(i.Images()), nil })
	handle(mux, "GET /v1/images/{name}", func(r *http.Request) (any, error) { return i.Image(r.PathValue("name")) })
	handle(mux, "DELETE /v1/images/{name}", func(r *http.Request) (any, error) {
		return done{true}, i.DeleteImage(r.Context(), r.PathValue("name"))
	})
	handle(mux, "POST /v1/images/{name}/rename", s.named(i.RenameImage))
	handle(mux, "POST /v1/images/{name}/fork", s.named(i.ForkImage))
	handle(mux, "GET /v1/images/{name}/working-set", func(r *http.Request) (any, error) { return i.WorkingSet(r.PathValue("name")) })
	handleUpTo(mux, maxWorkingSet, "PUT /v1/images/{name}/working-set", s.setWorkingSet)
	if !private {
		refuse := func(*http.Request) (any, error) {
			return nil, Errorf(CodeForbidden, "imports and exports go through the admin socket only")
		}
		handle(mux, "POST /v1/images", refuse)
		handle(mux, "GET /v1/images/{name}/memory", refuse)
		handle(mux, "GET /v1/images/{name}/state", refuse)
		return
	}
	mux.HandleFunc("POST /v1/images", s.importImage)
	mux.HandleFunc("GET /v1/images/{name}/memory", s.exported(i.ExportImage))
	mux.HandleFunc("GET /v1/images/{name}/state", s.exported(i.ImageState))
}

// named is a change of an image that takes a name.
func (s *Server) named(change func(ctx context.Context, image, name string) error) reply {
	return func(r *http.Request) (any, error) {
		var q Named
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		if err := change(r.Context(), r.PathValue("name"), q.Name); err != nil {
			return nil, err
		}
		return s.cfg.Images.Image(q.Name)
	}
}

func (s *Server) setWorkingSet(r *http.Request) (any, error) {
	var q WorkingSet
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	kept, err := s.cfg.Images.SetWorkingSet(r.Context(), r.PathValue("name"), q)
	return WorkingSet{ChunkBytes: q.ChunkBytes, Count: kept}, err
}

func (s *Server) importImage(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	var q ImportImage
	if err := decode(r, &q); err != nil {
		writeError(w, err)
		return
	}
	serveJob(w, r, func(ctx context.Context, progress func(JobProgress)) (Image, error) {
		return s.cfg.Images.ImportImage(ctx, q, progress)
	})
}

// exported answers with what write writes of an image.
func (s *Server) exported(write func(ctx context.Context, name string, w io.Writer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := &lateHeader{ResponseWriter: w, control: http.NewResponseController(w)}
		err := write(r.Context(), r.PathValue("name"), out)
		switch {
		case err == nil:
		case !out.wrote:
			writeError(w, err)
		default:
			s.cfg.Logger.Error("an export was cut short", "image", r.PathValue("name"), "error", err)
			panic(http.ErrAbortHandler) // so that the client does not take it for the end
		}
	}
}

// lateHeader notes whether something was sent.
type lateHeader struct {
	http.ResponseWriter
	control *http.ResponseController
	wrote   bool
}

func (w *lateHeader) Write(p []byte) (int, error) {
	if !w.wrote {
		w.wrote = true
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	return w.ResponseWriter.Write(p)
}

// SetWriteDeadline ends writes at a time.
func (w *lateHeader) SetWriteDeadline(t time.Time) error { return w.control.SetWriteDeadline(t) }
