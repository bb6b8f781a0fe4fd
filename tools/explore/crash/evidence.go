package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"

	"lsad/internal/blockdev"
)

// evidence is a copy of a state, made before it was opened. What was seen on a
// state depends on how goroutines met, and seldom comes again with the seed; the
// copy can be looked at as often as need be.
type evidence struct {
	mems []*blockdev.Mem
	fs   *vfs.MemFS
}

// keep copies a state, if evidence is asked for.
func (r *Run) keep(i *instant) *evidence {
	if r.cfg.Keep == "" {
		return nil
	}
	e := &evidence{fs: i.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r.rng})}
	for _, m := range i.mems {
		if m != nil {
			m = m.KillClone(r.rng) // nothing is under way
		}
		e.mems = append(e.mems, m)
	}
	return e
}

// tell writes the evidence of the run's first violation into a directory named
// after the seed, devices and metadata store as "lsad check" and "lsad dump"
// read them, and says where. err is returned with it.
func (r *Run) tell(ctx context.Context, e *evidence, i *instant, err error) error {
	if e == nil || r.told || err == nil || ctx.Err() != nil { // the end of a search breaks off what is under way
		return err
	}
	r.told = true
	dir := filepath.Join(r.cfg.Keep, strconv.FormatUint(r.cfg.Seed, 10))
	if failed := r.writeEvidence(dir, e, i, err); failed != nil {
		return fmt.Errorf("%w (the state could not be kept: %w)", err, failed)
	}
	return fmt.Errorf("%w (the state is in %s)", err, dir)
}

func (r *Run) writeEvidence(dir string, e *evidence, i *instant, err error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for slot, m := range e.mems {
		if m == nil {
			continue
		}
		if err := writeDevice(filepath.Join(dir, fmt.Sprint("dev", slot)), m); err != nil {
			return err
		}
	}
	if _, err := vfs.Clone(e.fs, vfs.Default, "meta", filepath.Join(dir, "meta")); err != nil {
		return err
	}
	f, openErr := os.Create(filepath.Join(dir, "story.txt"))
	if openErr != nil {
		return openErr
	}
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "%v: %v\n\n", i, err)
	for n := range i.trail {
		fmt.Fprintln(w, &i.trail[n])
	}
	fmt.Fprintln(w)
	return errors.Join(r.kept.writeTo(w), w.Flush(), f.Close())
}

// writeDevice writes what is not zeros.
func writeDevice(path string, m *blockdev.Mem) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(m.Size()); err != nil {
		return err
	}
	buf, zeros := make([]byte, 16<<10), make([]byte, 16<<10)
	for off := int64(0); off < m.Size(); off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), m.Size()-off)]
		if err := m.ReadAt(part, off); err != nil {
			return err
		}
		if string(part) == string(zeros[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, off); err != nil {
			return err
		}
	}
	return f.Close()
}
