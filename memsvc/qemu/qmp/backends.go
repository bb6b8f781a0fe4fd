package qmp

import (
	"context"
	"errors"
)

// Backend is a memory backend of a VM.
type Backend struct {
	ID    string `json:"id"`
	Share bool   `json:"share"` // what the guest writes is in the file
	Type  string `json:"-"`     // "memory-backend-file" and others; "" if QEMU does not say
	File  string `json:"-"`     // of a memory-backend-file, as QEMU calls it
	// Deleted says that QEMU's file is no longer the one of that name, as far as this can be seen.
	Deleted bool `json:"-"`
}

// Backends are the memory backends of the VM.
func (c *Client) Backends(ctx context.Context) ([]Backend, error) {
	var all []Backend
	if err := c.Execute(ctx, "query-memdev", nil, &all); err != nil {
		return nil, err
	}
	for i := range all {
		for property, value := range map[string]*string{"type": &all[i].Type, "mem-path": &all[i].File} {
			arguments := map[string]string{"path": "/objects/" + all[i].ID, "property": property}
			if err := c.Execute(ctx, "qom-get", arguments, value); err != nil && !errors.Is(err, ErrCommand) {
				return nil, err
			}
		}
		all[i].Deleted = all[i].File != "" && c.deleted(all[i].File)
	}
	return all, nil
}
