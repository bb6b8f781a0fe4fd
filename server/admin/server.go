package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a server is made of.
type Config struct {
	Array      Array      // required
	Collector  Collector  // nil: there are no /v1/gc paths
	Maintainer Maintainer // nil: no /v1/scrub and /v1/work
	Devices    Devices    // nil: no changes of /v1/devices
	LocalDisks LocalDisks // nil: no /v1/ublk paths
	Images     Images     // nil: no /v1/images paths
	ImageVMs   ImageVMs   // nil: VMs are neither saved nor restored
	Placer     Placer     // nil: nobody is told where blocks lie
	IO         *IO        // nil: no I/O metrics
	Token      string     // who sends it may make changes where Access.Changes is not set; "" is nobody
	Logger     *slog.Logger
}

// Access is what a listener allows.
type Access struct {
	Changes bool // changes without a token: the listener is private to the owner of the array
	Debug   bool // /debug/pprof
}

// Server answers the API. Make one with New.
type Server struct {
	cfg     Config
	metrics http.Handler
	jobs    jobs

	stopping context.Context // ends when a server of HTTP is told to shut down
	stop     context.CancelFunc
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, metrics: promhttp.HandlerFor(newRegistry(&cfg), promhttp.HandlerOpts{})}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

// HTTP makes a server for one listener. Who starts it stops it, with Shutdown.
func (s *Server) HTTP(a Access) *http.Server {
	h := &http.Server{
		Handler:           s.Handler(a),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.Background() },
	}
	h.RegisterOnShutdown(s.stop)
	return h
}

// untilStop does work that may take hours and can be broken off. It ends when the client goes away, and when the server
// is stopped, which would wait for it.
func untilStop[T any](s *Server, r *http.Request, what string, work func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	result, err := work(ctx)
	if err != nil && ctx.Err() != nil && s.stopping.Err() != nil {
		err = Errorf(CodeClosed, "%s: broken off: the server is stopping", what)
	}
	return result, err
}

// Handler answers requests with the rights of a.
func (s *Server) Handler(a Access) http.Handler {
	mux := http.NewServeMux()
	s.routes(mux)
	if s.cfg.Collector != nil {
		s.gcRoutes(mux)
	}
	if s.cfg.LocalDisks != nil {
		s.ublkRoutes(mux)
	}
	if s.cfg.Maintainer != nil {
		s.maintenanceRoutes(mux)
	}
	if s.cfg.Devices != nil {
		s.deviceRoutes(mux, a.Changes)
	}
	if s.cfg.Images != nil {
		s.imageRoutes(mux, a.Changes)
	}
	if s.cfg.ImageVMs != nil {
		s.vmRoutes(mux, a.Changes)
	}
	if s.cfg.Placer != nil {
		s.placeRoutes(mux, a.Changes)
	}
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /healthz", s.health)
	if a.Debug {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return s.guard(a, jsonErrors(mux))
}

// guard lets changes pass only where they are allowed.
func (s *Server) guard(a Access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !a.Changes {
			if err := s.authorize(r); err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				writeError(w, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorize(r *http.Request) error {
	if s.cfg.Token == "" {
		return Errorf(CodeForbidden, "changes are not allowed here: use the admin socket, or start the server with --http-token")
	}
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	ok = ok && strings.EqualFold(scheme, "Bearer")
	// Hashes have one length, so that comparing them tells nothing of the token's.
	want, got := sha256.Sum256([]byte(s.cfg.Token)), sha256.Sum256([]byte(given))
	if !ok || subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return Errorf(CodeUnauthorized, "the token is missing or wrong (Authorization: Bearer TOKEN)")
	}
	return nil
}

// jsonErrors turns the plain text of the mux's own errors into the JSON of the API's.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &discard{header: http.Header{}}
		mux.ServeHTTP(probe, r)
		if probe.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", probe.header.Get("Allow"))
			writeError(w, Errorf(CodeMethod, "%s does not take %s, only %s", r.URL.Path, r.Method, probe.header.Get("Allow")))
			return
		}
		writeError(w, Errorf(CodeNotFound, "there is no %s in this API", r.URL.Path))
	})
}

// discard remembers only the status of a response.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := s.cfg.Array.Health(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(err.Error() + "\n")) // the client went away: nothing to do
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}
