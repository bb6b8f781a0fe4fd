package crash

import (
	"context"

	"lsad/lsa"
)

// drawFlavour decides which volumes of a run have two copies. Config.Copies alone
// gives every other one two in half of the runs.
func (r *Run) drawFlavour() {
	if !r.cfg.Devices {
		return
	}
	roll := r.rng.IntN(10)
	if r.cfg.Focus == Losses {
		roll = max(roll, 5)
	}
	switch {
	case roll == 0: // such an array can only be read without one of its devices
		r.copiesOnly = 1
	case roll < 7:
		r.copiesOnly = 2
	}
}

// drawCopies of a volume that is made now, after its name was drawn.
func (r *Run) drawCopies() int {
	switch {
	case r.copiesOnly > 0:
		return r.copiesOnly
	case r.cfg.Devices:
		return 1 + r.names&1
	case r.cfg.Copies && r.cfg.Seed&1 == 1 && r.names&1 == 1:
		return 2
	}
	return 1
}

// makeVolume makes a volume of the array.
func (r *Run) makeVolume(ctx context.Context, v *volume) error {
	return r.a.CreateVolumeWith(ctx, v.name, volumeBytes(v.blocks), lsa.VolumeOptions{Copies: v.copies})
}
