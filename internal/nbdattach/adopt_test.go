package nbdattach

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOther holds which devices are taken over, and what is said of the others: in words, and with more ways out than
// to detach it.
func TestOther(t *testing.T) {
	const now = "0123456789abcdef-2-0"
	want := backend{2, now, "nbd+unix:///vol0?socket=/run/nbd.sock"}
	for _, c := range []struct {
		kept, says string
	}{
		{want.String(), ""},
		{backend{4, now, want.target}.String(), ""},
		{backend{2, now, "nbd+unix:///vol%30?socket=/run//nbd.sock"}.String(), ""},
		{backend{2, now, "nbd://localhost:10809/vol0"}.String(), ""},
		{backend{2, now, "nbd://h/vol1"}.String(), `attached to "vol1" of tcp:h:10809`},
		{backend{2, "0123456789abcdef-3-0", want.target}.String(), "earlier state"},
		{"", "another program"},
		{"disk1", "another program"},
	} {
		err := other("/dev/nbd0", c.kept, want)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.kept, err)
			}
			continue
		}
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "name another device") || strings.Contains(err.Error(), backendMagic) {
			t.Errorf("%s: %v", c.kept, err)
		}
	}
	none := backend{2, unknownIncarnation, want.target}
	if err := other("/dev/nbd0", none.String(), none); !errors.Is(err, ErrChanged) {
		t.Errorf("a server without an incarnation: %v", err)
	}
}

// TestDetachTexts holds that what is refused says how it is done nevertheless.
func TestDetachTexts(t *testing.T) {
	if err := notWritten("/dev/nbd3", unix.EIO); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "lsad detach --force /dev/nbd3") {
		t.Error(err)
	}
	if err := foreign("/dev/nbd3"); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "lsad detach --force /dev/nbd3") {
		t.Error(err)
	}
	if last := lastDevice(); last < 255 || last >= 1<<20 {
		t.Errorf("the last device is %d", last)
	}
}
