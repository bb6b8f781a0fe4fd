package main

import "errors"

// undo is what has to be taken back when a start fails, or at the end of a run.
type undo struct{ steps []func() error }

func (u *undo) add(step func() error) { u.steps = append(u.steps, step) }

// run takes everything back, the last first, and goes on after errors.
func (u *undo) run() error {
	var errs []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		errs = append(errs, u.steps[i]())
	}
	u.steps = nil
	return errors.Join(errs...)
}

// forget keeps things as they are.
func (u *undo) forget() { u.steps = nil }
