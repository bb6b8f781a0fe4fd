package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"lsad/internal/config"
	"lsad/memsvc"
	"lsad/memsvc/qemu"
	"lsad/memsvc/qemu/qmp"
	"lsad/server/admin"
)

// IngestImage implements admin.ImageVMs.
func (i *images) IngestImage(ctx context.Context, q admin.IngestImage, progress func(admin.JobProgress)) (admin.Image, error) {
	info, err := withProgress(progress, func(p *memsvc.Progress) (memsvc.Info, error) { return i.ingest(ctx, q, p) })
	if err != nil {
		i.server.log.Error("a VM could not be saved", "image", q.Name, "error", err)
		return admin.Image{}, coded(err)
	}
	p := info.Manifest.Pages
	i.server.log.Info("saved a VM as image "+q.Name, "machine", info.Manifest.Machine, "pages_in_use", p.InUse, "pages_free", p.Free, "pages_zero", p.Zero, "why", info.Manifest.Elision.Why)
	return i.imageOf(info), nil
}

func (i *images) ingest(ctx context.Context, q admin.IngestImage, p *memsvc.Progress) (info memsvc.Info, err error) {
	ctx, done, err := i.Job(ctx)
	if err != nil {
		return info, err
	}
	defer done()
	// That the name is taken should be known before the VM is.
	if _, err := i.server.array.Volume(q.Name); err == nil {
		return info, fmt.Errorf("image %q: a volume or image of that name %w", q.Name, memsvc.ErrExists)
	}
	conn, sending, err := i.awaitQEMU(ctx, q, p)
	if err != nil {
		return info, err
	}
	defer conn.Close()
	defer func() { err = sending.end(ctx, err) }()
	f, err := scratchFile(i.server.dir.path)
	if err != nil {
		return info, err
	}
	defer f.Close()
	got := int64(0)
	in, err := qemu.Ingest(ctx, conn, ramFile{f}, qemu.IngestOptions{Progress: func(done, total int64) {
		if got == 0 {
			p.Begin(sending.receives(), total)
		}
		p.Add(done - got)
		got = done
	}})
	if err != nil {
		return info, err
	}
	if err := sending.finish(ctx); err != nil {
		return info, err
	}
	return i.keep(ctx, q, in, f, p)
}

// sending is the QEMU that sends a VM, if its monitor is known.
type sending struct {
	monitor *qmp.Client
	vm      *qemu.Sending
}

// begin has QEMU send its VM.
func (s *sending) begin(ctx context.Context, socket string, to config.Addr) (err error) {
	if socket == "" {
		return nil
	}
	if s.monitor, err = qmp.Dial(ctx, "unix", socket); err != nil {
		return err
	}
	s.vm, err = qemu.Send(ctx, s.monitor, qemuURI(to))
	return err
}

// receives says what is done while pages come.
func (s *sending) receives() string {
	if s.vm != nil && s.vm.Emulated {
		return "receive memory of the VM, which stands still because QEMU emulates it"
	}
	return "receive memory"
}

func (s *sending) finish(ctx context.Context) error {
	if s.vm == nil {
		return nil
	}
	return s.vm.Finish(ctx)
}

// end has the VM run on where it was, if saving it has failed.
func (s *sending) end(ctx context.Context, err error) error {
	if s.monitor == nil {
		return err
	}
	defer s.monitor.Close()
	if err == nil || s.vm == nil {
		return err
	}
	if back := s.vm.GiveBack(ctx); back != nil {
		return fmt.Errorf("%w; and %w", err, back)
	}
	return fmt.Errorf("%w; the VM goes on where it was", err)
}

// awaitQEMU listens for one connection, which QEMU is told to make if its monitor is known.
func (i *images) awaitQEMU(ctx context.Context, q admin.IngestImage, p *memsvc.Progress) (_ net.Conn, from *sending, err error) {
	if q.Listen == "" && q.QMP != "" {
		q.Listen = "unix:" + q.QMP + ".save"
	}
	a, err := absoluteAddr(q.Listen)
	if err != nil {
		return nil, nil, err
	}
	if err := checkPrivate(ctx, a, q.Insecure); err != nil {
		return nil, nil, err
	}
	l, err := listen(ctx, "listen", a, i.server.gid)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	from = &sending{}
	if err := from.begin(ctx, q.QMP, a); err != nil {
		return nil, nil, from.end(ctx, err)
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	p.Begin("wait for QEMU's migrate to "+qemuURI(a), 0)
	conn, err := l.Accept()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, from.end(ctx, err)
	}
	return conn, from, nil
}

// checkPrivate refuses to take VMs from everybody.
func checkPrivate(ctx context.Context, a config.Addr, insecure bool) error {
	local, err := a.Local(ctx)
	if err != nil || local || insecure {
		return err
	}
	return config.Usagef("listen %v: other machines reach it, and QEMU's stream is neither encrypted nor says who sends it; take a unix socket or 127.0.0.1 and a tunnel, or allow it with --insecure", a)
}

// keep makes the image of what was received.
func (i *images) keep(ctx context.Context, q admin.IngestImage, in *qemu.Ingested, f *os.File, p *memsvc.Progress) (memsvc.Info, error) {
	src, err := ingested(in.State, f)
	if err != nil {
		return memsvc.Info{}, err
	}
	return i.Import(ctx, src, memsvc.ImportOptions{
		Name: q.Name, State: bytes.NewReader(in.State.Marshal()), KeepFree: q.KeepFree, Parent: q.Parent, Volumes: q.Volumes,
		Machine: in.State.Machine, Progress: p,
		// A migration that has completed is the proof: QEMU has stopped the VM.
		Paused: func(context.Context) error { return nil },
	})
}

// ingested describes received memory. The largest block is the guest's RAM, placed as the machine does; the others
// are ROMs and the like, in which no kernel keeps free pages.
func ingested(s *qemu.State, f *os.File) (*memsvc.Source, error) {
	var blocks []memsvc.Block
	largest := 0
	for n, b := range s.Blocks {
		blocks = append(blocks, memsvc.Block{Name: b.Name, Size: b.Size})
		if b.Size > s.Blocks[largest].Size {
			largest = n
		}
	}
	layout := "pc"
	if strings.Contains(s.Machine, "q35") {
		layout = "q35"
	}
	all, err := memsvc.Layouts(layout, blocks[largest].Size)
	if err != nil {
		return nil, err
	}
	blocks[largest].Ranges = all[0]
	src, err := memsvc.NewSource("qemu", blocks, []memsvc.Piece{{File: f, FileSize: s.Size(), Size: s.Size()}})
	if err == nil {
		src.Machine = s.Machine
	}
	return src, err
}

// absoluteAddr reads an address that a client has sent.
func absoluteAddr(text string) (config.Addr, error) {
	a, err := config.ParseAddr(text)
	if err == nil && a.Network == "unix" && !filepath.IsAbs(a.Address) {
		err = fmt.Errorf("%w: %q is not an absolute path", memsvc.ErrInvalid, a.Address)
	}
	return a, err
}

// qemuURI is an address as QEMU writes it.
func qemuURI(a config.Addr) string {
	if a.Network == "unix" {
		return a.String()
	}
	return "tcp:" + a.Address
}
