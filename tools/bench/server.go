package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"lsad/internal/config"
	"lsad/server/admin"
)

// exportName is that of every server's one export.
const exportName = "vol0"

// server is an NBD server to measure.
type server struct {
	name    string
	socket  string
	flushes bool // it advertises flush
	proc    *child
}

// uri is how fio finds the export.
func (s *server) uri() string {
	return fmt.Sprintf("nbd+unix:///%s?socket=%s", exportName, s.socket)
}

// bench is the place of one run: a directory that is removed at its end, and the programs built for it.
type bench struct {
	dir  string
	lsad string // the program
}

// newBench makes a temporary directory below dir and builds lsad in it, unless there is a program to use.
func newBench(ctx context.Context, dir, lsad string) (*bench, error) {
	if err := need("fio", "fio"); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(dir, "lsad-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: tmp, lsad: lsad}
	if lsad == "" {
		b.lsad, err = buildProgram(ctx, tmp, "lsad/cmd/lsad")
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() { os.RemoveAll(b.dir) }

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// imageFile makes the sparse file that a server of plain files serves.
func (b *bench) imageFile(name string, size config.Size) (string, error) {
	path := b.path(name + ".img")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return path, f.Truncate(int64(size))
}

// startLsad starts an lsad with its data in a directory called name. What it needs beyond that is in flags.
func (b *bench) startLsad(ctx context.Context, name, program string, flags ...string) (*server, error) {
	dir := b.path(name)
	s := &server{name: name, socket: filepath.Join(dir, config.NBDSocket), flushes: true}
	args := append([]string{"serve", "--dir", dir, "--http", "none"}, flags...)
	return s.started(ctx, program, args...)
}

// started starts the server's process and waits until it serves.
func (s *server) started(ctx context.Context, program string, args ...string) (*server, error) {
	var err error
	if s.proc, err = startChild(s.name, program, args...); err != nil {
		return nil, err
	}
	if err := s.proc.awaitGreeting(ctx, s.socket); err != nil {
		s.proc.kill()
		return nil, err
	}
	return s, nil
}

// adminSocket is that of an lsad.
func (s *server) adminSocket() string {
	return filepath.Join(filepath.Dir(s.socket), config.AdminSocket)
}

// admin is a client of an lsad's admin socket.
func (s *server) admin() *admin.Client {
	return admin.NewClient("unix", s.adminSocket(), "")
}

// startNBDKit serves a file with nbdkit's file plugin, at its defaults: 16 threads, page cache.
func (b *bench) startNBDKit(ctx context.Context, size config.Size) (*server, error) {
	if err := need("nbdkit", "nbdkit"); err != nil {
		return nil, err
	}
	image, err := b.imageFile("nbdkit", size)
	if err != nil {
		return nil, err
	}
	s := &server{name: "nbdkit", socket: b.path("nbdkit.sock"), flushes: true}
	return s.started(ctx, "nbdkit", "--foreground", "--unix", s.socket, "file", image)
}

// startQemuNBD serves a raw file with qemu-nbd through the page cache, for as many clients as nbdkit takes.
func (b *bench) startQemuNBD(ctx context.Context, size config.Size) (*server, error) {
	if err := need("qemu-nbd", "qemu-utils"); err != nil {
		return nil, err
	}
	image, err := b.imageFile("qemu-nbd", size)
	if err != nil {
		return nil, err
	}
	s := &server{name: "qemu-nbd", socket: b.path("qemu-nbd.sock"), flushes: true}
	return s.started(ctx, "qemu-nbd", "--persistent", "--shared", strconv.Itoa(16), "--format", "raw",
		"--cache", "writeback", "--aio", "threads", "--export-name", exportName, "--socket", s.socket, image)
}

// startGoNBD serves a file with go-nbd's server.
func (b *bench) startGoNBD(ctx context.Context, size config.Size) (*server, error) {
	program, err := buildProgram(ctx, b.dir, "lsad/tools/guest/gonbd")
	if err != nil {
		return nil, err
	}
	image, err := b.imageFile("go-nbd", size)
	if err != nil {
		return nil, err
	}
	s := &server{name: "go-nbd", socket: b.path("go-nbd.sock")}
	return s.started(ctx, program, "serve", "unix:"+s.socket, image)
}
