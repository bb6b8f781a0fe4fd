package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lsad/internal/config"
	"lsad/lsa"
	"lsad/memsvc"
	"lsad/server/admin"
	"lsad/server/nbd"
)

// catalog exports the volumes of an array, and their snapshots read-only as VOLUME@SNAPSHOT.
type catalog struct {
	array  *lsa.Array
	images *memsvc.Service
	first  []config.VolumeSpec // the default export is the first of these that exists
	errors *ioLog
}

// List implements nbd.Catalog.
func (c *catalog) List() []nbd.ExportInfo {
	var all []nbd.ExportInfo
	for _, v := range c.array.Volumes() {
		what := "volume of "
		switch memsvc.Classify(v.Name, v.Attributes) {
		case memsvc.ClassHidden:
			continue
		case memsvc.ClassImage:
			info, err := c.images.Get(v.Name)
			if err != nil {
				continue // lsad image list says what is wrong with it
			}
			what, v.Size = "memory of a VM with ", info.Manifest.RAM()
		}
		all = append(all, nbd.ExportInfo{Name: v.Name, Description: what + size(v.Size)})
		for _, s := range v.Snapshots {
			all = append(all, nbd.ExportInfo{Name: v.Name + "@" + s.Name, Description: "snapshot of " + v.Name + ", " + s.Created.UTC().Format("2006-01-02 15:04:05Z")})
		}
	}
	return all
}

// Open implements nbd.Catalog.
func (c *catalog) Open(name string, client nbd.Client) (nbd.Export, error) {
	if name == "" {
		if name = c.defaultExport(); name == "" {
			return nil, fmt.Errorf("%w: there are several and none is the default; name one", nbd.ErrUnknownExport)
		}
	}
	who := client.Addr
	if client.Name != "" {
		who += " (" + client.Name + ")"
	}
	h, err := c.array.OpenVolume(name, lsa.OpenOptions{Client: who})
	if errors.Is(err, lsa.ErrNotFound) {
		return nil, fmt.Errorf("%w %q", nbd.ErrUnknownExport, name)
	}
	if err != nil {
		return nil, err
	}
	e, err := c.limit(&export{Handle: h, info: nbd.ExportInfo{Name: name, Description: c.describe(h, h.Size())}, client: who, errors: c.errors})
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return e, nil
}

// limit shows of an image the memory only, and nothing of what is becoming one.
func (c *catalog) limit(e *export) (nbd.Export, error) {
	volume, _, _ := strings.Cut(e.info.Name, "@")
	v, err := c.array.Volume(volume)
	if err != nil || v.ID != e.Volume() {
		return nil, fmt.Errorf("%w %q", nbd.ErrUnknownExport, e.info.Name) // it was renamed at this moment
	}
	switch memsvc.Classify(volume, v.Attributes) {
	case memsvc.ClassHidden:
		return nil, fmt.Errorf("%w %q", nbd.ErrUnknownExport, e.info.Name)
	case memsvc.ClassImage:
		info, err := c.images.Get(volume)
		if err != nil {
			return nil, err
		}
		ram := info.Manifest.RAM()
		e.info.Description = "memory of a VM, " + strings.TrimPrefix(c.describe(e.Handle, ram), "volume of ")
		return &imageExport{e, ram}, nil
	}
	return e, nil
}

// imageExport is the memory of an image: what lies behind it is the VMM's.
type imageExport struct {
	*export
	ram int64
}

// Size implements nbd.Export. The NBD server lets no request go beyond it.
func (e *imageExport) Size() int64 { return e.ram }

// describe says what an export is, and which incarnation of it: that changes when writes that were acknowledged may
// have been lost, and when the content becomes another one without being written, and is another one for another volume
// or snapshot of the same name. Who reconnects compares (lsad attach, lsad hook). It is about what is open, not about
// what has that name by now. Volumes of two arrays may have the same number; hence the array.
func (c *catalog) describe(h *lsa.Handle, bytes int64) string {
	what, content, layer := "volume of ", h.Turns(), ""
	if h.Layer() != 0 {
		what, content, layer = "snapshot of ", h.Layer(), fmt.Sprintf(", layer %x", h.Layer())
	}
	st := c.array.Status()
	return fmt.Sprintf("%s%s, incarnation %016x-%x-%x%s, array %s", what, size(bytes), st.Incarnation, h.Volume(), content, layer, st.Array)
}

// defaultExport is the only volume, or the first of those that the settings name.
func (c *catalog) defaultExport() string {
	all := slices.DeleteFunc(c.array.Volumes(), func(v lsa.VolumeInfo) bool {
		return memsvc.Classify(v.Name, v.Attributes) != memsvc.ClassVolume
	})
	if len(all) == 1 {
		return all[0].Name
	}
	for _, v := range c.first {
		if _, err := c.array.Volume(v.Name); err == nil {
			return v.Name
		}
	}
	return ""
}

// recorders count the requests to each export.
type recorders struct{ io *admin.IO }

// Export implements nbd.Metrics.
func (r recorders) Export(name string) nbd.Recorder { return recorder{r.io.Volume(name)} }

type recorder struct{ *admin.VolumeIO }

// Record implements nbd.Recorder.
func (r recorder) Record(op nbd.Op, n int, bytes int64, errors int, latency time.Duration) {
	r.VolumeIO.Record(int(op), n, bytes, errors, latency)
}

// newIO counts the operations of NBD.
func newIO() *admin.IO {
	var ops []string
	for op := range nbd.NumOps {
		ops = append(ops, op.String())
	}
	return admin.NewIO(ops)
}
