package crash

import (
	"context"

	"lsad/lsa"
)

// makeVolume makes a volume of the array. With Config.Copies, every other one
// has two copies in half of the runs.
func (r *Run) makeVolume(ctx context.Context, v *volume) error {
	o := lsa.VolumeOptions{Copies: 1}
	if r.cfg.Copies && r.cfg.Seed&1 == 1 && r.names&1 == 1 {
		o.Copies = 2
	}
	return r.a.CreateVolumeWith(ctx, v.name, volumeBytes(v.blocks), o)
}
