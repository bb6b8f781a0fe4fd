package main

import (
	"context"
	"fmt"

	"lsad/internal/direct"
	"lsad/kvmhook/localsource"
	"lsad/server/admin"
)

// placesOf asks a server on this machine where blocks of an image lie.
func placesOf(c *admin.Client, image string) localsource.Locate {
	return func(ctx context.Context, off int64, blocks int) (localsource.Places, error) {
		p, err := c.Places(ctx, image, off, blocks)
		if err != nil {
			switch admin.CodeOf(err) {
			case admin.CodeInvalid, admin.CodeForbidden, admin.CodeUnauthorized, admin.CodeNotFound, admin.CodeMethod:
				err = fmt.Errorf("%w: %w", direct.ErrNever, err)
			}
			return localsource.Places{}, err
		}
		return localsource.Places{
			Answer: direct.Answer{Uses: p.Uses, Base: p.Base, Devices: p.Devices, Rows: p.Rows}, Export: p.Export,
		}, nil
	}
}
