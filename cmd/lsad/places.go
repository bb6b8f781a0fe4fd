package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lsad/internal/direct"
	"lsad/lsa"
	"lsad/server/admin"
	"lsad/server/nbd"
)

// usesFile is the file in the data directory by which others see that a block has moved.
const usesFile = "uses"

// openUses makes the array tell. Without it everything is read through the server.
func (s *server) openUses() *direct.Uses {
	path := s.dir.file(usesFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		s.made.add(func() error { return ignoreMissing(os.Remove(path)) })
	}
	u, err := direct.CreateUses(path)
	if err != nil {
		s.log.Warn("nobody can read from the devices directly: lsad hook reads through the server", "error", err)
		return nil
	}
	s.ends.add(u.Close)
	return u
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// places tells where blocks of images lie.
type places struct {
	array   *lsa.Array
	catalog *catalog
	uses    *direct.Uses // nil: it does not
}

// Places implements admin.Placer.
func (p *places) Places(_ context.Context, image string, off int64, blocks int) (admin.Places, error) {
	if p.uses == nil {
		return admin.Places{}, admin.Errorf(admin.CodeInvalid, "this server does not tell where blocks lie")
	}
	uses, err := filepath.Abs(p.uses.Path())
	if err != nil {
		return admin.Places{}, err
	}
	e, err := p.catalog.Open(image, nbd.Client{Addr: "admin"})
	if err != nil {
		return admin.Places{}, coded(err)
	}
	i, ok := e.(*imageExport)
	if !ok {
		return admin.Places{}, errors.Join(admin.Errorf(admin.CodeNotFound, "%s is no image", image), e.Close())
	}
	defer i.Close()
	if off > i.Size() || int64(blocks) > (i.Size()-off)/direct.BlockSize {
		return admin.Places{}, admin.Errorf(admin.CodeInvalid, "%d blocks at %d: %s has %d bytes of memory", blocks, off, image, i.Size())
	}
	out := admin.Places{Export: i.Info().Description, Uses: uses}
	rows := make([]direct.Row, blocks)
	if out.Base, err = i.Locate(off, rows); err != nil {
		return admin.Places{}, coded(err)
	}
	out.Rows = direct.EncodeRows(nil, rows)
	out.Devices = p.array.DeviceNames()
	for i, path := range out.Devices {
		if path == "" {
			continue
		}
		if out.Devices[i], err = filepath.Abs(path); err != nil {
			return admin.Places{}, err
		}
	}
	return out, nil
}
