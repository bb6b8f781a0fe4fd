package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
	return imageOf(info), nil
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
			p.Begin("receive memory", total)
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
	defer func() {
		if err != nil {
			err = from.end(ctx, err)
		}
	}()
	if err := from.begin(ctx, q.QMP, a); err != nil {
		return nil, nil, err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	p.Begin("wait for QEMU's migrate to "+qemuURI(a), 0)
	conn, err := l.Accept()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, from, err
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

// scratchFile makes a file without a name.
func scratchFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "received memory")), nil
	}
	f, err := os.CreateTemp(dir, "ingest-*") // a file system without O_TMPFILE
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ramFile is a file as qemu.RAMFile.
type ramFile struct{ *os.File }

func (f ramFile) Zero(off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// RestoreImage implements admin.ImageVMs.
func (i *images) RestoreImage(ctx context.Context, name string, q admin.RestoreImage, progress func(admin.JobProgress)) (admin.Restored, error) {
	var p qemu.Progress
	_, err := withProgress(progress, func(show *memsvc.Progress) (_ struct{}, err error) {
		p, err = i.restore(ctx, name, q, phases(show))
		return struct{}{}, err
	})
	if err != nil {
		err = fmt.Errorf("image %q: %w; %s", name, err, whereIs(p.Owner, "restore "+name))
		i.server.log.Error("a restore failed", "image", name, "to", q.To, "owner", p.Owner, "error", err)
		return admin.Restored{}, coded(err)
	}
	i.server.log.Info("restored a VM from image "+name, "to", q.To, "to_run", p.ToRun, "took", p.Took, "data_pages", p.DataPages, "zero_pages", p.ZeroPages, "losses", p.Losses)
	return restoredOf(p), nil
}

func restoredOf(p qemu.Progress) admin.Restored {
	return admin.Restored{
		Owner: string(p.Owner), DataPages: p.DataPages, ZeroPages: p.ZeroPages, SentBytes: p.Bytes, Demanded: p.Demanded,
		Losses: p.Losses, ToRunSeconds: p.ToRun.Seconds(), TookSeconds: p.Took.Seconds(),
	}
}

// whereIs tells who has the VM after a failure, and what to do.
func whereIs(owner qemu.Owner, again string) string {
	if owner == qemu.Destination {
		return "the VM has been handed to the destination, which needs the rest of its memory from here: have it listen again (migrate-recover), then run lsad image " + again + " again, with --resume"
	}
	return "the VM does not run at the destination"
}

func (i *images) restore(ctx context.Context, name string, q admin.RestoreImage, tell func(qemu.Progress)) (qemu.Progress, error) {
	none := qemu.Progress{Owner: qemu.Source}
	ctx, done, err := i.Job(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	img, err := i.Open(name, "a restore to "+q.To)
	if err != nil {
		return none, err
	}
	defer img.Close() // it was only read
	o := qemu.RestoreOptions{
		RAM: imageRAM{img}, Resume: q.Resume, NoFill: q.NoFill, Rate: q.BytesPerSecond,
		Patience: time.Duration(q.PatienceSeconds * float64(time.Second)), Progress: tell,
	}
	if o.State, o.Zero, err = vmOf(img); err != nil {
		return none, err
	}
	if q.PageBytes != 0 {
		o.HugePages = map[string]int64{largestBlock(o.State): q.PageBytes}
	}
	d, err := connect(ctx, q.To, q.QMP, q.Resume)
	if err != nil {
		return none, err
	}
	defer d.close()
	o.Dial = d.dial
	return qemu.Restore(ctx, o)
}

// vmOf reads what an image has of a VM besides its pages, and which of those are holes.
func vmOf(img *memsvc.Image) (*qemu.State, *qemu.PageSet, error) {
	m := img.Manifest()
	if m.Source != "qemu" {
		return nil, nil, fmt.Errorf("%w: it was made from a file and has no device state of QEMU; use lsad image ingest for a VM that is to be resumed", memsvc.ErrInvalid)
	}
	raw, err := io.ReadAll(img.State())
	if err != nil {
		return nil, nil, err
	}
	s, err := qemu.UnmarshalState(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, err
	}
	if s.Size() != img.RAM() {
		return nil, nil, fmt.Errorf("%w: the device state speaks of %d bytes of RAM, the image has %d", memsvc.ErrDamaged, s.Size(), img.RAM())
	}
	zero, off := qemu.NewPageSet(s.Pages()), int64(0)
	err = img.Extents(0, img.RAM(), func(n int64, hole bool) bool {
		if hole {
			zero.AddRange((off+qemu.PageSize-1)/qemu.PageSize, (off+n)/qemu.PageSize)
		}
		off += n
		return true
	})
	return s, zero, err
}

func largestBlock(s *qemu.State) string {
	largest := s.Blocks[0]
	for _, b := range s.Blocks {
		if b.Size > largest.Size {
			largest = b
		}
	}
	return largest.Name
}

// imageRAM is an image as io.ReaderAt.
type imageRAM struct{ *memsvc.Image }

func (r imageRAM) ReadAt(p []byte, off int64) (int, error) {
	if err := r.Image.ReadAt(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// phases shows the progress of a VM's way to its destination.
func phases(show *memsvc.Progress) func(qemu.Progress) {
	step, done := "", int64(0)
	return func(p qemu.Progress) {
		total := p.TotalPages * qemu.PageSize
		if text := phaseText(p); text != step {
			step, done = text, 0
			show.Begin(step, total)
		}
		show.Add(p.SentPages*qemu.PageSize - done)
		done = p.SentPages * qemu.PageSize
	}
}

func phaseText(p qemu.Progress) string {
	switch p.Phase {
	case qemu.Running:
		return "runs at the destination, which gets its memory"
	case qemu.Paused:
		return "the destination is lost and waits (migrate-recover there); trying again"
	case qemu.Resuming:
		return "the destination is back"
	}
	return string(p.Phase)
}

// absoluteAddr reads an address that a client has sent.
func absoluteAddr(text string) (config.Addr, error) {
	a, err := config.ParseAddr(text)
	if err == nil && a.Network == "unix" && !filepath.IsAbs(a.Address) {
		err = fmt.Errorf("%w: %q is not an absolute path", memsvc.ErrInvalid, a.Address)
	}
	return a, err
}

// destination is a QEMU that waits for a VM, or that has one and has lost its source.
type destination struct {
	to      config.Addr
	monitor *qmp.Client // nil: somebody else tells it to listen
	qemu    *qemu.Receiver
	lost    bool // it has to be told to listen again
}

// connect prepares a destination. Without an address it listens beside its monitor.
func connect(ctx context.Context, to, socket string, resume bool) (*destination, error) {
	if to == "" && socket != "" {
		to = "unix:" + socket + ".incoming"
	}
	a, err := absoluteAddr(to)
	if err != nil {
		return nil, err
	}
	d := &destination{to: a, lost: resume}
	if socket == "" {
		return d, nil
	}
	if d.monitor, err = qmp.Dial(ctx, "unix", socket); err != nil {
		return nil, err
	}
	if resume {
		d.qemu = qemu.Found(d.monitor, qemuURI(a))
		return d, nil
	}
	if d.qemu, err = qemu.Receive(ctx, d.monitor, qemuURI(a)); err != nil {
		d.close()
		return nil, fmt.Errorf("the destination: %w", err)
	}
	return d, nil
}

func (d *destination) close() {
	if d.monitor != nil {
		d.monitor.Close()
	}
}

// dial connects; the first time as it is, later after a loss.
func (d *destination) dial(ctx context.Context) (net.Conn, error) {
	var again error
	if d.monitor != nil && d.lost {
		again = d.qemu.Recover(ctx) // it may listen already
	}
	conn, err := dialer(d.to)(ctx)
	if err != nil {
		return nil, errors.Join(again, err)
	}
	d.lost = true
	return conn, nil
}

func dialer(a config.Addr) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		return d.DialContext(ctx, a.Network, a.Address)
	}
}

// qemuURI is an address as QEMU writes it.
func qemuURI(a config.Addr) string {
	if a.Network == "unix" {
		return a.String()
	}
	return "tcp:" + a.Address
}
