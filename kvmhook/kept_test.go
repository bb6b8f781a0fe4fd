package kvmhook

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// keep is somebody else who has open what a hook hands on.
type keep struct{ files [2]*os.File }

func (k *keep) take(userfault, state int) error {
	for i, fd := range [2]int{userfault, state} {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		k.files[i] = os.NewFile(uintptr(n), "kept")
	}
	return nil
}

func (k *keep) kept() *Kept { return &Kept{k.files[0], k.files[1]} }

// A hook ends without its VMM, and another one goes on: threads that waited get their pages, what was removed before
// stays removed, and everything else is whole.
func TestResume(t *testing.T) {
	const pages = 4000
	removed := func(i int) bool { return i >= 100 && i < 300 || i >= 2000 && i < 2100 }
	check := func(a answer, first int) {
		t.Helper()
		compare(t, a, order{First: first}, func(i int) []byte {
			if removed(i) {
				return make([]byte, smallPage)
			}
			return content(i)
		})
	}
	for _, fill := range []bool{false, true} {
		var k keep
		src := newMemSource(pages)
		r := newRig(t, Options{Source: src, NoFill: true, Keep: k.take})
		v := startVMM(t)
		v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
		v.do(order{Op: "touch", First: 50, Last: 250})
		v.do(order{Op: "remove", First: 100, Last: 300})
		v.do(order{Op: "remove", First: 2000, Last: 2100})
		if !r.Status().Kept {
			t.Error("nothing is kept")
		}
		release, before := src.hold(), r.Status().FetchedFaults
		waits := v.start(order{Op: "touch", First: 1000, Last: 1008, Threads: 8})
		eventually(t, "the faults", func() bool { return r.Status().FetchedFaults > before })
		r.cancel()
		release()
		if <-r.done; !errors.Is(r.err, context.Canceled) {
			t.Fatal(r.err)
		}
		next := newRig(t, Options{Source: newMemSource(pages), NoFill: !fill, Resume: k.kept()})
		check(v.await(waits, "touch"), 1000)
		check(v.do(order{Op: "touch", Last: pages, Threads: 4}), 0)
		v.do(order{Op: "write", First: 400, Last: 401})
		v.do(order{Op: "remove", First: 401, Last: 402})
		compare(t, v.do(order{Op: "touch", First: 401, Last: 402}), order{First: 401}, func(int) []byte { return make([]byte, smallPage) })
		if st := next.Status(); st.ResidentPercent != 100 || st.RemovedBytes != smallPage {
			t.Errorf("%+v", st)
		}
		next.end(v)
	}
}

// namedSource is an image with an identity.
type namedSource struct {
	*memSource
	name string
}

func (s *namedSource) Identity() string { return s.name }

func (s *namedSource) Same(identity string) error {
	if identity != s.name {
		return fmt.Errorf("%w: %q, not %q", ErrSource, s.name, identity)
	}
	return nil
}

// The image that goes by the name now is another one of the same size. It must not be mixed with the first. Where an
// earlier version of this program kept nothing of it, or the source has no identity, there is nothing to compare.
func TestResumeOtherImage(t *testing.T) {
	const pages = 64
	resume := func(first, then Source) error {
		t.Helper()
		var k keep
		r := newRig(t, Options{Source: first, NoFill: true, Keep: k.take})
		v := startVMM(t)
		v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(pages)})
		check(t, v, order{First: 10, Last: 12}, 0)
		r.cancel()
		<-r.done
		next := newRig(t, Options{Source: then, NoFill: true, Resume: k.kept()})
		v.start(order{Op: "touch", First: 20, Last: 21})
		eventually(t, "the second hook", func() bool {
			select {
			case <-next.done:
				return true
			default:
				return next.Status().FetchedFaults > 0
			}
		})
		next.cancel()
		<-next.done
		return next.err
	}
	one, other := &namedSource{newMemSource(pages), "one"}, &namedSource{newMemSource(pages), "another"}
	if err := resume(one, other); !errors.Is(err, ErrNotKept) || !errors.Is(err, ErrSource) {
		t.Errorf("another image: %v", err)
	}
	for _, then := range []Source{one, other.memSource} {
		if err := resume(one, then); !errors.Is(err, context.Canceled) {
			t.Errorf("%T: %v", then, err)
		}
	}
	if err := resume(one.memSource, one); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing was known: %v", err)
	}
}

// What was kept is not believed.
func TestResumeRefuses(t *testing.T) {
	regions := []Region{{Base: 1 << 30, Size: 64 * smallPage, PageSize: smallPage}}
	const image = 64 * smallPage
	src := &namedSource{newMemSource(64), "the image"}
	tests := map[string]func(p []byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"no magic":         func(p []byte) []byte { p[0]++; return p },
		"another image":    func(p []byte) []byte { p[8]++; return p },
		"taking events":    func(p []byte) []byte { p[16] = 1; return p },
		"no mappings":      func(p []byte) []byte { p[24] = 0; return p },
		"too many":         func(p []byte) []byte { p[25] = 1; return p },
		"beyond the image": func(p []byte) []byte { binary.NativeEndian.PutUint64(p[48:], smallPage); return p },
		"odd page":         func(p []byte) []byte { p[56]++; return p },
		"too short":        func(p []byte) []byte { return p[:len(p)-4*8] },
		"identity cut off": func(p []byte) []byte { return p[:len(p)-8] },
		"identity of none": func(p []byte) []byte { p[len(p)-3*8] = 0; return p },
		"identity of many": func(p []byte) []byte { p[len(p)-3*8+7] = 0xFF; return p },
		"another identity": func(p []byte) []byte { p[len(p)-2*8]++; return p },
		"not whole words":  func(p []byte) []byte { return p[:len(p)-1] },
	}
	for name, spoil := range tests {
		k, err := newKept(regions, image, src.name)
		if err != nil {
			t.Fatal(err)
		}
		text := spoil(append([]byte(nil), k.mem...))
		k.close()
		path := t.TempDir() + "/state"
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := openKept(f, src); !errors.Is(err, ErrNotKept) && !errors.Is(err, ErrHandshake) {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: the file is still open", name)
		}
	}
}
