package main

import (
	"errors"
	"fmt"
	"time"

	"lsad/internal/config"
	"lsad/lsa"
	"lsad/server/admin"
	"lsad/server/nbd"
)

// catalog exports the volumes of an array, and their snapshots read-only as VOLUME@SNAPSHOT.
type catalog struct {
	array  *lsa.Array
	first  []config.VolumeSpec // the default export is the first of these that exists
	errors *ioLog
}

// List implements nbd.Catalog.
func (c *catalog) List() []nbd.ExportInfo {
	var all []nbd.ExportInfo
	for _, v := range c.array.Volumes() {
		all = append(all, nbd.ExportInfo{Name: v.Name, Description: "volume of " + size(v.Size)})
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
	return &export{Handle: h, info: nbd.ExportInfo{Name: name}, client: who, errors: c.errors}, nil
}

// defaultExport is the only volume, or the first of those that the settings name.
func (c *catalog) defaultExport() string {
	all := c.array.Volumes()
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
