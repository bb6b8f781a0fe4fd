package main

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	"lsad/internal/loglimit"
	"lsad/lsa"
	"lsad/server/nbd"
)

// export is an open volume or snapshot as the NBD server sees it. It adds to the handle that errors are logged: the
// client is told as well, but what it does with them is seldom seen by who runs the server.
type export struct {
	*lsa.Handle
	info   nbd.ExportInfo
	client string
	errors *ioLog
}

// Info implements nbd.Described.
func (e *export) Info() nbd.ExportInfo { return e.info }

func (e *export) note(op string, err error) error {
	if err != nil {
		e.errors.failed(op, e.info.Name, e.client, err)
	}
	return err
}

// TryReadAt implements nbd.Export.
func (e *export) TryReadAt(p []byte, off int64) (bool, error) {
	done, err := e.Handle.TryReadAt(p, off)
	return done, e.note("read", err)
}

// ReadAt implements nbd.Export.
func (e *export) ReadAt(p []byte, off int64) error { return e.note("read", e.Handle.ReadAt(p, off)) }

// WriteBatch implements nbd.Export.
func (e *export) WriteBatch(offs []int64, data [][]byte, errs []error) {
	e.Handle.WriteBatch(offs, data, errs)
	for _, err := range errs {
		if err != nil {
			_ = e.note("write", err) // the caller has it too
			return
		}
	}
}

// Trim implements nbd.Export.
func (e *export) Trim(off, n int64) error { return e.note("trim", e.Handle.Trim(off, n)) }

// WriteZeroes implements nbd.Export.
func (e *export) WriteZeroes(off, n int64, noHole bool) error {
	return e.note("write zeroes", e.Handle.WriteZeroes(off, n, noHole))
}

// Flush implements nbd.Export.
func (e *export) Flush() error { return e.note("flush", e.Handle.Flush()) }

// ioLog logs errors of requests, one a second at most: a failing disk has thousands. A full array, which may say so for
// hours, does not hide other errors.
type ioLog struct {
	log           *slog.Logger
	full, failing loglimit.Limiter
}

func (l *ioLog) failed(op, export, client string, err error) {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ESHUTDOWN) {
		return // the client's own fault, or the end
	}
	of := &l.failing
	if errors.Is(err, syscall.ENOSPC) {
		of = &l.full
	}
	if more, ok := of.Allow(time.Now()); ok {
		l.log.Error("a request failed", "request", op, "export", export, "client", client, "error", err, "more_since_last", more)
	}
}
