package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// reply is what a handler answers: a value for the body, or an error.
type reply func(r *http.Request) (any, error)

func handle(mux *http.ServeMux, pattern string, fn reply) { handleUpTo(mux, maxBody, pattern, fn) }

// handleUpTo is handle with a bound on the body of its own.
func handleUpTo(mux *http.ServeMux, limit int64, pattern string, fn reply) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		v, err := fn(r)
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, v)
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client went away: nothing to do
}

func writeError(w http.ResponseWriter, err error) {
	code := CodeOf(err)
	status, ok := statusOf[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, errorBody{Error{Code: code, Message: err.Error()}})
}

// decode reads a request's JSON strictly.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(CodeInvalid, "request body: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(CodeInvalid, "request body: something follows the JSON object")
	}
	return nil
}

type done struct {
	OK bool `json:"ok"`
}

func (s *Server) routes(mux *http.ServeMux) {
	a := s.cfg.Array
	handle(mux, "GET /{$}", func(*http.Request) (any, error) { return a.Status(), nil })
	handle(mux, "GET /v1/status", func(*http.Request) (any, error) { return a.Status(), nil })
	handle(mux, "GET /v1/devices", func(*http.Request) (any, error) { return list(a.Devices()), nil })
	handle(mux, "GET /v1/connections", func(*http.Request) (any, error) { return list(a.Connections()), nil })
	handle(mux, "GET /v1/volumes", func(*http.Request) (any, error) { return list(a.Volumes()), nil })
	handle(mux, "POST /v1/volumes", s.createVolume)
	handle(mux, "GET /v1/volumes/{name}", func(r *http.Request) (any, error) { return a.Volume(r.PathValue("name")) })
	handle(mux, "DELETE /v1/volumes/{name}", s.deleteVolume)
	handle(mux, "POST /v1/volumes/{name}/resize", s.resizeVolume)
	handle(mux, "POST /v1/volumes/{name}/rename", s.renameVolume)
	handle(mux, "POST /v1/volumes/{name}/snapshots", s.snapshot)
	handle(mux, "DELETE /v1/volumes/{name}/snapshots/{snapshot}", s.deleteSnapshot)
	handle(mux, "POST /v1/volumes/{name}/snapshots/{snapshot}/clone", s.clone)
	handle(mux, "POST /v1/volumes/{name}/snapshots/{snapshot}/revert", s.revert)
}

// list is l, and never null in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func (s *Server) createVolume(r *http.Request) (any, error) {
	var q CreateVolume
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if err := s.cfg.Array.CreateVolume(r.Context(), q.Name, q.SizeBytes, q.Copies); err != nil {
		return nil, err
	}
	return s.cfg.Array.Volume(q.Name)
}

func (s *Server) deleteVolume(r *http.Request) (any, error) {
	return done{true}, s.cfg.Array.DeleteVolume(r.Context(), r.PathValue("name"))
}

func (s *Server) resizeVolume(r *http.Request) (any, error) {
	var q ResizeVolume
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if err := s.cfg.Array.ResizeVolume(r.Context(), name, q.SizeBytes, q.Force); err != nil {
		return nil, err
	}
	return s.cfg.Array.Volume(name)
}

func (s *Server) renameVolume(r *http.Request) (any, error) {
	var q Named
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if err := s.cfg.Array.RenameVolume(r.Context(), r.PathValue("name"), q.Name); err != nil {
		return nil, err
	}
	return s.cfg.Array.Volume(q.Name)
}

func (s *Server) snapshot(r *http.Request) (any, error) {
	var q Named
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	if err := s.cfg.Array.Snapshot(r.Context(), name, q.Name); err != nil {
		return nil, err
	}
	return s.cfg.Array.Volume(name)
}

func (s *Server) deleteSnapshot(r *http.Request) (any, error) {
	name := r.PathValue("name") + "@" + r.PathValue("snapshot")
	return done{true}, s.cfg.Array.DeleteVolume(r.Context(), name)
}

func (s *Server) clone(r *http.Request) (any, error) {
	var q Named
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	err := s.cfg.Array.Clone(r.Context(), r.PathValue("name"), r.PathValue("snapshot"), q.Name)
	if err != nil {
		return nil, err
	}
	return s.cfg.Array.Volume(q.Name)
}

func (s *Server) revert(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if err := s.cfg.Array.Revert(r.Context(), name, r.PathValue("snapshot")); err != nil {
		return nil, err
	}
	return s.cfg.Array.Volume(name)
}

func (s *Server) gcRoutes(mux *http.ServeMux) {
	c := s.cfg.Collector
	handle(mux, "GET /v1/gc", func(*http.Request) (any, error) { return list(c.GCStatus()), nil })
	handle(mux, "PATCH /v1/gc", func(r *http.Request) (any, error) {
		var q GCChange
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		if err := c.GCSet(q); err != nil {
			return nil, err
		}
		return list(c.GCStatus()), nil
	})
	handle(mux, "POST /v1/gc/run", func(r *http.Request) (any, error) {
		var q GCRunRequest
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		return done{true}, c.GCRun(q.Device)
	})
}
