package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"lsad/internal/config"
	"lsad/internal/direct"
	"lsad/lsa"
	"lsad/memsvc"
	"lsad/server/admin"
	"lsad/server/nbd"
	"lsad/server/ublk"
)

// server is one run of lsad serve. start fills it in, in steps; each step adds to ends what undoes it, and to made
// what a failed start has to remove again.
type server struct {
	cfg    *config.Config
	log    *slog.Logger
	notify *notifier

	gid       int
	token     string
	tls       *tls.Config // nil without
	activated activated

	dir        *dataDir
	plan       plan
	nbdOn      []net.Listener
	adminOn    []net.Listener
	httpOn     []net.Listener
	remembered atomic.Bool // members is what the array has
	membersMu  sync.Mutex  // guards members, once the array is open, and devices, once the server serves
	members    *members
	devices    deviceSet
	meta       metaStore
	array      *lsa.Array
	images     *memsvc.Service
	collector  *collector
	uses       *direct.Uses // nil: nobody reads from the devices directly
	nbd        *nbd.Server
	disks      *localDisks
	started    time.Time

	ends, made undo
	failures   chan error
	running    sync.WaitGroup
}

// start opens everything or nothing.
func (s *server) start(ctx context.Context) error {
	s.started = time.Now()
	s.failures = make(chan error, 16)
	for _, step := range []func(context.Context) error{
		s.checkSettings, s.openDir, s.openListeners, s.openArray, s.openImages, s.createVolumes, s.holdDisks, s.startServing, s.startDisks,
	} {
		err := step(ctx)
		if err == nil && ctx.Err() != nil {
			err = errors.New("interrupted while starting")
		}
		if err != nil {
			return errors.Join(err, s.ends.run(), s.made.run())
		}
	}
	s.made.forget()
	return nil
}

// checkSettings does what can fail without touching the data directory.
func (s *server) checkSettings(ctx context.Context) (err error) {
	if s.gid, err = lookupGroup(s.cfg.Group); err != nil {
		return config.Usagef("%v", err)
	}
	if s.token, err = s.cfg.Token(); err != nil {
		return err
	}
	if err := checkMemory(int64(s.cfg.MapCache)); err != nil {
		return err
	}
	if len(s.cfg.Ublk) > 0 {
		if err := ublk.Available(); err != nil {
			return fmt.Errorf("ublk %s: %w", s.cfg.Ublk[0], err)
		}
	}
	if s.cfg.TLSMode() != "off" {
		if s.tls, err = nbd.WatchTLS(s.cfg.TLSCert, s.cfg.TLSKey, s.cfg.TLSClientCA, s.log); err != nil {
			return config.Usagef("%v", err)
		}
	}
	if s.activated, err = activatedListeners(os.Getenv, os.Getpid()); err != nil {
		return err
	}
	return s.checkExposed(ctx)
}

// checkExposed holds the rule about listeners beyond this machine.
func (s *server) checkExposed(ctx context.Context) error {
	encrypted := s.cfg.TLSMode() == "require"
	nbdAddrs, httpAddrs, err := s.addrs()
	if err != nil {
		return err
	}
	for _, l := range s.activated["nbd"] {
		nbdAddrs = append(nbdAddrs, addrOf(l))
	}
	for _, l := range s.activated["http"] {
		httpAddrs = append(httpAddrs, addrOf(l))
	}
	for _, l := range s.activated["admin"] {
		if a := addrOf(l); a.Network != "unix" {
			return config.Usagef("admin %v: only a unix socket can be the admin socket", a)
		}
	}
	for _, a := range nbdAddrs {
		if err := checkExposure(ctx, "nbd", a, encrypted, s.cfg.Insecure); err != nil {
			return err
		}
	}
	for _, a := range httpAddrs {
		if err := checkExposure(ctx, "http", a, s.tls != nil, s.cfg.Insecure); err != nil {
			return err
		}
	}
	return nil
}

// addrs are the addresses to listen at; those of sockets that systemd passes are not among them.
func (s *server) addrs() (nbdAddrs, httpAddrs []config.Addr, err error) {
	if len(s.cfg.NBD) > 0 || len(s.activated["nbd"]) == 0 {
		nbdAddrs = s.cfg.NBDAddrs()
	}
	a, ok, err := s.cfg.HTTPAddr()
	if ok && len(s.activated["http"]) == 0 {
		httpAddrs = append(httpAddrs, a)
	}
	return nbdAddrs, httpAddrs, err
}

func (s *server) openDir(context.Context) (err error) {
	if s.dir, err = openDataDir(s.cfg.Dir, true, &s.made); err != nil {
		return err
	}
	s.ends.add(s.dir.close)
	if s.members, err = s.dir.readMembers(); err != nil {
		return err
	}
	if s.plan, err = planArray(s.cfg, s.members); err != nil {
		return err
	}
	if s.members != nil || s.dir.made {
		return s.dir.share(s.gid)
	}
	return nil
}

func (s *server) openListeners(ctx context.Context) error {
	nbdAddrs, httpAddrs, err := s.addrs()
	if err != nil {
		return err
	}
	adminAddrs := []config.Addr{{Network: "unix", Address: s.cfg.DirPath(config.AdminSocket)}}
	for _, group := range []struct {
		what  string
		addrs []config.Addr
		to    *[]net.Listener
	}{{"nbd", nbdAddrs, &s.nbdOn}, {"admin", adminAddrs, &s.adminOn}, {"http", httpAddrs, &s.httpOn}} {
		*group.to = append(*group.to, s.activated[group.what]...)
		for _, a := range group.addrs {
			l, err := listen(ctx, group.what, a, s.gid)
			if err != nil {
				return err
			}
			*group.to = append(*group.to, l)
			s.ends.add(func() error { return ignoreClosed(l.Close()) })
		}
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// wait returns when the context ends (nil) or when a part of the server fails.
func (s *server) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failures:
		return err
	}
}

// goServe runs fn, which serves until it is stopped, and reports if it fails.
func (s *server) goServe(what string, fn func() error) {
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		if err := fn(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.failures <- fmt.Errorf("%s: %w", what, err)
		}
	}()
}

// drainTime is how long clients have at a stop to get the answers to what they asked.
const drainTime = 10 * time.Second

// startServing starts the servers on the listeners, which are open already.
func (s *server) startServing(context.Context) error {
	mode, err := nbd.ParseTLSMode(s.cfg.TLSMode())
	if err != nil {
		return err
	}
	stats := s.disks.stats
	exports := &catalog{array: s.array, images: s.images, first: s.plan.volumes, errors: &ioLog{log: s.log}}
	s.nbd, err = nbd.New(nbd.Config{
		Catalog: exports, TLSMode: mode, TLS: s.tls,
		Logger: s.log, Metrics: recorders{stats},
		MaxConnections: s.cfg.MaxConnections, MaxBufferBytes: nbdBufferBytes,
	})
	if err != nil {
		return err
	}
	b := &backend{server: s, stats: stats}
	vms := &images{s.images, s, stats}
	a := admin.New(admin.Config{
		Array: b, Maintainer: b, Devices: b,
		Collector: s.collector, LocalDisks: s.disks, Images: vms, ImageVMs: vms, IO: stats, Token: s.token, Logger: s.log,
		Placer: &places{array: s.array, catalog: exports, uses: s.uses},
	})
	ctx, cancel := context.WithCancel(context.Background())
	for _, l := range s.nbdOn {
		s.goServe("nbd", func() error { return s.nbd.Serve(ctx, l) })
	}
	servers := s.serveHTTP(a)
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		s.notify.keepAlive(ctx, func() { s.array.Status() })
	}()
	s.running.Go(func() { s.watchDevices(ctx) })
	s.ends.add(func() error {
		cancel()
		return errors.Join(s.stopServing(servers))
	})
	return nil
}

func (s *server) serveHTTP(a *admin.Server) []*http.Server {
	var servers []*http.Server
	add := func(what string, l net.Listener, access admin.Access) {
		h := a.HTTP(access)
		servers = append(servers, h)
		s.goServe(what, func() error { return h.Serve(l) })
	}
	for _, l := range s.adminOn {
		add("admin", l, admin.Access{Changes: true, Debug: true})
	}
	for _, l := range s.httpOn {
		if s.overTLS(l) {
			l = tls.NewListener(l, s.tls)
		}
		add("http", l, admin.Access{})
	}
	return servers
}

// overTLS says whether an HTTP listener is encrypted: with a certificate, those that other machines reach.
func (s *server) overTLS(l net.Listener) bool {
	if s.tls == nil {
		return false
	}
	local, err := addrOf(l).Local(context.Background())
	return err != nil || !local
}

// stopServing lets clients have their answers, and waits for every goroutine of the servers.
func (s *server) stopServing(servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	s.images.Close() // what it answers then, goes out below
	err := s.nbd.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("some clients were cut off while they waited for answers", "after", drainTime)
		err = nil
	}
	for _, h := range servers {
		if e := h.Shutdown(ctx); e != nil {
			err = errors.Join(err, h.Close())
		}
	}
	s.running.Wait()
	return err
}

// stop undoes start, the last first.
func (s *server) stop() error { return s.ends.run() }
