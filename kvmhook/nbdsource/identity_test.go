package nbdsource

import (
	"errors"
	"strings"
	"testing"

	"lsad/kvmhook"
	"lsad/server/nbd"
)

const (
	arrayA = ", array 00112233445566778899aabbccddeeff"
	arrayB = ", array ff112233445566778899aabbccddeeff"
	image5 = "memory of a VM, 4 MiB, incarnation 0123456789abcdef-5"
	crash5 = "memory of a VM, 4 MiB, incarnation 1123456789abcdef-5"
	image9 = "memory of a VM, 4 MiB, incarnation 0123456789abcdef-9"
)

func TestDiffers(t *testing.T) {
	for _, test := range []struct {
		was, now       string
		sealed, forked string // what differs
	}{
		{image5 + arrayA, image5 + arrayA, "", ""},
		{image5 + arrayA, crash5 + arrayA, "", "its incarnation was 0123456789abcdef and is 1123456789abcdef"},
		{image5 + arrayA, image9 + arrayA, "its volume was 5 and is 9", "its volume was 5 and is 9"},
		{image5 + arrayA, image5 + arrayB, "its array was 00", "its array was 00"},
		{image5, image5 + arrayA, "", ""}, // the server was brought up to date meanwhile
		{image5 + arrayA, image5, "", ""},
		{image5 + ", layer 6" + arrayA, image5 + ", layer 7" + arrayA, "its snapshot was 6 and is 7", "its snapshot was 6 and is 7"},
		{image5, "volume of 4 MiB", "tells nothing now", "tells nothing now"},
		{"", image5, "told nothing", "told nothing"},
		{"one", "another", "", ""},
	} {
		for readOnly, want := range map[bool]string{true: test.sealed, false: test.forked} {
			got := identify(test.was, readOnly).differs(identify(test.now, readOnly))
			if !strings.HasPrefix(got, want) && !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%q, then %q, read-only %v: got %q, want %q", test.was, test.now, readOnly, got, want)
			}
		}
	}
	if how := identify(image5, true).differs(identify(image5, false)); how != "it was read-only and is writable" {
		t.Errorf("got %q", how)
	}
}

// described is an export that tells what it is, and whether it is read-only.
type described struct {
	nbd.Export
	description string
	sealed      bool
}

func (d described) Info() nbd.ExportInfo {
	return nbd.ExportInfo{Name: "vm", Description: d.description}
}
func (d described) ReadOnly() bool { return d.sealed }

// What has the name by now is compared on every connection: on those that are made later, and on those that are made
// again.
func TestOtherImage(t *testing.T) {
	for _, test := range []struct {
		then   string
		sealed bool
		want   string // "" for the same image
	}{
		{image5, true, ""},
		{crash5, true, ""},
		{image9, true, "its volume was 5 and is 9"},
		{crash5, false, "its incarnation was"},
		{"memory of a VM, 4 MiB", true, "tells nothing now"},
	} {
		for _, again := range []bool{false, true} {
			srv, target := unixServer(t)
			srv.describe(image5, test.sealed)
			s := open(t, target, Options{Connections: 2})
			srv.describe(test.then, test.sealed)
			var err error
			if again {
				srv.stop()
				srv.start()
				err = s.startAndWait(make([]byte, page), 0)
			} else {
				err = s.ReadAt(t.Context(), make([]byte, page), 0) // over the second connection
			}
			switch {
			case test.want == "" && err != nil:
				t.Errorf("%q, made again %v: %v", test.then, again, err)
			case test.want != "" && (!errors.Is(err, errChanged) || !errors.Is(err, kvmhook.ErrSource) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), `"vm"`)):
				t.Errorf("%q, made again %v: got %v, want %q", test.then, again, err, test.want)
			}
			if same := s.Is(test.then); same != (test.want == "") {
				t.Errorf("%q is the same image: %v", test.then, same)
			}
		}
	}
}

// A second source knows whether it has the image that the first had.
func TestSame(t *testing.T) {
	srv, target := unixServer(t)
	srv.describe(image5, true)
	first := open(t, target, Options{}).Identity()
	for then, same := range map[string]bool{image5: true, crash5: true, image9: false} {
		srv.describe(then, true)
		if err := open(t, target, Options{}).Same(first); (err == nil) != same || !same && !errors.Is(err, kvmhook.ErrSource) {
			t.Errorf("%q: %v", then, err)
		}
	}
	srv.describe("", true)
	if id := open(t, target, Options{}).Identity(); id != "" {
		t.Errorf("the identity of what tells nothing is %q", id)
	}
}
