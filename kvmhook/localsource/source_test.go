package localsource

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"lsad/internal/direct"
	"lsad/internal/nbdclient"
	"lsad/kvmhook"
	"lsad/kvmhook/hooktest"
	"lsad/kvmhook/nbdsource"
	"lsad/kvmhook/vmmtest"
	"lsad/server/nbd"
	"lsad/server/nbd/memexport"
)

const (
	pages = 1024
	page  = 4096
	start = 1 << 20 // of the blocks on the device
)

var _ kvmhook.Near = (*Source)(nil)

func TestMain(m *testing.M) {
	vmmtest.Main()
	os.Exit(m.Run())
}

func image() []byte {
	p := make([]byte, pages*page)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(i)|1<<60)
	}
	return p
}

type catalog struct{ disk *memexport.Disk }

func (c *catalog) List() []nbd.ExportInfo { return []nbd.ExportInfo{c.Info()} }
func (c *catalog) Info() nbd.ExportInfo {
	return nbd.ExportInfo{Name: "vm", Description: "memory of a VM"}
}

// described is an export with a description.
type described struct {
	nbd.Export
	*catalog
}

func (d described) Info() nbd.ExportInfo { return d.catalog.Info() }

func (c *catalog) Open(string, nbd.Client) (nbd.Export, error) {
	return described{c.disk.Open(), c}, nil
}

// rig is an image over NBD and, in reverse order of its pages, on a device.
type rig struct {
	t      testing.TB
	disk   *memexport.Disk
	uses   *direct.Uses
	device string
	reads  atomic.Int64 // over NBD
	export string
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, disk: memexport.New(pages*page, false), device: filepath.Join(t.TempDir(), "dev"), export: "memory of a VM"}
	data := image()
	device := make([]byte, start, start+pages*page)
	for i := pages - 1; i >= 0; i-- {
		device = append(device, data[i*page:(i+1)*page]...)
	}
	if err := os.WriteFile(r.device, device, 0o600); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 1)
	r.disk.WriteBatch([]int64{0}, [][]byte{data}, errs)
	r.disk.Fail = func(op string, _, _ int64) error {
		if op == "read" {
			r.reads.Add(1)
		}
		return errs[0]
	}
	var err error
	if r.uses, err = direct.CreateUses(filepath.Join(t.TempDir(), "uses")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.uses.Close() })
	return r
}

func (r *rig) locate(_ context.Context, off int64, blocks int) (Places, error) {
	data := image()
	var rows []direct.Row
	for i := int(off / page); i < int(off/page)+blocks; i++ {
		crc := crc32.Checksum(data[i*page:(i+1)*page], crc32.MakeTable(crc32.Castagnoli))
		rows = append(rows, r.uses.Row(0, uint32(i), start+int64(pages-1-i)*page, crc))
	}
	base, _ := r.uses.Base()
	return Places{direct.Answer{Uses: r.uses.Path(), Base: base, Devices: []string{r.device}, Rows: direct.EncodeRows(nil, rows)}, r.export}, nil
}

func (r *rig) open() *Source {
	r.t.Helper()
	srv, err := nbd.New(nbd.Config{Catalog: &catalog{r.disk}})
	if err != nil {
		r.t.Fatal(err)
	}
	path := filepath.Join(r.t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), l) }()
	r.t.Cleanup(func() {
		srv.Shutdown(context.Background())
		<-done
	})
	o := nbdsource.Options{Logger: slog.New(slog.DiscardHandler)}
	n, err := nbdsource.Open(r.t.Context(), nbdclient.Target{Network: "unix", Address: path, Export: "vm"}, o)
	if err != nil {
		r.t.Fatal(err)
	}
	s := New(n, o, r.locate)
	r.t.Cleanup(func() { s.Close() })
	return s
}

// What is known comes from the device, the rest over NBD, and all of it is right.
func TestRead(t *testing.T) {
	r := newRig(t)
	s := r.open()
	data, p := image(), make([]byte, 16*page)
	read := func(first int) {
		t.Helper()
		if err := s.ReadAt(t.Context(), p, int64(first)*page); err != nil || !bytes.Equal(p, data[first*page:first*page+len(p)]) {
			t.Fatalf("page %d: %v", first, err)
		}
	}
	read(100)
	if r.reads.Load() != 0 || s.DirectBytes() != int64(len(p)) {
		t.Errorf("%d reads over NBD, %d bytes read directly", r.reads.Load(), s.DirectBytes())
	}
	f, err := os.OpenFile(r.device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("damage"), start+(pages-1-50)*page); err != nil {
		t.Fatal(err)
	}
	read(40)
	if r.reads.Load() == 0 {
		t.Error("a damaged page was not asked of the server")
	}
}

// A server that speaks of another image of that name is not believed.
func TestOtherImage(t *testing.T) {
	r := newRig(t)
	r.export = "memory of another VM"
	s := r.open()
	p := make([]byte, page)
	if err := s.ReadAt(t.Context(), p, 7*page); err != nil || !bytes.Equal(p, image()[7*page:8*page]) || s.DirectBytes() != 0 {
		t.Errorf("%v, %d bytes read directly", err, s.DirectBytes())
	}
}

// A VM whose pages come both ways.
func TestServe(t *testing.T) {
	for _, noFill := range []bool{true, false} {
		r := newRig(t)
		s := r.open()
		v, h := hooktest.Serve(t, kvmhook.Options{Source: s, NoFill: noFill})
		stop := make(chan struct{})
		moved := make(chan struct{})
		go func() { // what was told is good for nothing, again and again
			defer close(moved)
			for i := uint32(0); ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					r.uses.Emptied(0, i*37%pages)
				}
			}
		}()
		a, err := v.Do(vmmtest.Order{Op: vmmtest.OpTouch, Last: pages, Threads: 6, Stride: 33}, hooktest.Patience)
		close(stop)
		<-moved
		if err != nil {
			t.Fatal(err)
		}
		data := image()
		for i, hash := range a.Hashes {
			if hash != vmmtest.Hash(data[i*page:(i+1)*page]) {
				t.Fatalf("page %d: wrong content", i)
			}
		}
		if st := h.Status(); st.ResidentPercent != 100 || s.DirectBytes() == 0 {
			t.Errorf("%+v, %d bytes read directly", st, s.DirectBytes())
		}
	}
}
