package kvmhook

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lsad/kvmhook/uffd"
)

const (
	one      = `{"base_host_virt_addr":1048576,"size":65536,"offset":0}`
	twoMiB   = `{"base_host_virt_addr":4194304,"size":2097152,"offset":65536,"page_size_kib":2097152}`
	newest   = `{"base_host_virt_addr":1048576,"size":65536,"offset":0,"page_size":4096,"page_size_kib":4096,"huge_pages":"None"}`
	inTheGap = `{"base_host_virt_addr":1114112,"size":4096,"offset":65536}`
)

func TestParseRegions(t *testing.T) {
	tests := []struct {
		text string
		want string // regions, or a part of the error
	}{
		{"[" + one + "]", "[{1048576 65536 0 4096}]"},
		{" [\n" + one + " , " + twoMiB + "]\n", "[{1048576 65536 0 4096} {4194304 2097152 65536 2097152}]"},
		{"[" + newest + "]", "[{1048576 65536 0 4096}]"},
		{"", "incomplete"},
		{"  [", "incomplete"},
		{"[" + one, "incomplete"},
		{"GET / HTTP/1.1", "want a JSON array"},
		{"{}", "want a JSON array"},
		{"[]", "0 mappings"},
		{"[1]", "cannot unmarshal"},
		{"[" + one + "] x", `"x" after the mappings`},
		{`[{"size":4096,"offset":0}]`, "missing"},
		{`[{"base_host_virt_addr":-4096,"size":4096,"offset":0}]`, "cannot unmarshal"},
		{`[{"base_host_virt_addr":4096,"size":1e30,"offset":0}]`, "cannot unmarshal"},
		{`[{"base_host_virt_addr":4096,"size":0,"offset":0}]`, "whole pages"},
		{`[{"base_host_virt_addr":4097,"size":4096,"offset":0}]`, "whole pages"},
		{`[{"base_host_virt_addr":4096,"size":4095,"offset":0}]`, "whole pages"},
		{`[{"base_host_virt_addr":4096,"size":4096,"offset":1}]`, "whole pages"},
		{`[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":0}]`, "pages of 0"},
		{`[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size_kib":4}]`, "pages of 4 "},
		{`[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096,"page_size_kib":2097152}]`, "page_size says"},
		{`[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":2097152}]`, "whole pages"},
		{`[{"base_host_virt_addr":18446744073709547520,"size":8192,"offset":0}]`, "address space"},
		{`[{"base_host_virt_addr":4096,"size":18446744073709547520,"offset":0}]`, "address space"},
		{"[" + strings.Repeat(one+",", maxRegions) + one + "]", "1025 mappings"},
	}
	for _, test := range tests {
		regions, err := parseRegions([]byte(test.text))
		switch got := fmt.Sprint(regions); {
		case err == nil && got != test.want:
			t.Errorf("%.60s: got %s, want %s", test.text, got, test.want)
		case err != nil && !strings.Contains(err.Error(), test.want):
			t.Errorf("%.60s: got %v, want %q", test.text, err, test.want)
		case err != nil && !errors.Is(err, ErrHandshake) && !errors.Is(err, errIncomplete):
			t.Errorf("%.60s: %v has no kind", test.text, err)
		}
	}
}

func TestCheckRegions(t *testing.T) {
	r := func(base, size, offset uint64) Region {
		return Region{Base: base, Size: size, Offset: offset, PageSize: 4096}
	}
	tests := []struct {
		regions []Region
		want    string
	}{
		{[]Region{r(8192, 4096, 4096), r(4096, 4096, 0)}, ""},
		{[]Region{r(4096, 8192, 0), r(8192, 4096, 8192)}, "overlap in the addresses"},
		{[]Region{r(4096, 4096, 0), r(4096, 4096, 4096)}, "overlap in the addresses"},
		{[]Region{r(4096, 8192, 0), r(65536, 4096, 4096)}, "overlap in the image"},
		{[]Region{r(4096, 4096, 12288)}, "an image of 12288"},
		{[]Region{r(4096, 16384, 0)}, "another VM"},
		{[]Region{r(4096, 4096, 1<<63)}, "an image of 12288"},
	}
	for _, test := range tests {
		err := checkRegions(test.regions, 12288)
		if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: got %v, want %q", test.regions, err, test.want)
		}
	}
}

func FuzzParseRegions(f *testing.F) {
	for _, seed := range []string{one, twoMiB, newest, inTheGap, one + "," + inTheGap} {
		f.Add([]byte("["+seed+"]"), int64(1<<20))
	}
	f.Fuzz(func(t *testing.T, p []byte, image int64) {
		regions, err := parseRegions(p)
		if err != nil || image < 0 || checkRegions(regions, image) != nil {
			return
		}
		sum := uint64(0)
		for _, r := range regions {
			if r.Size == 0 || r.Offset+r.Size > uint64(image) || r.Base+r.Size > maxAddress || r.Base%r.PageSize != 0 {
				t.Fatalf("%+v", r)
			}
			sum += r.Size
		}
		if sum > uint64(image) {
			t.Fatalf("%d bytes mapped of an image of %d", sum, image)
		}
	})
}

// openDescriptors counts those of this process, but for the runtime's own comings and goings.
func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// What is no VMM is disconnected, costs no descriptor, and keeps no VMM from being served.
func TestHostileHandshakes(t *testing.T) {
	r := newRig(t, Options{Source: newMemSource(64)})
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null := int(file.Fd())
	fd, err := uffd.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	good := "[" + one + "]"
	before := openDescriptors(t)
	for name, send := range map[string]func(c *net.UnixConn) error{
		"nothing":       func(*net.UnixConn) error { return nil },
		"garbage":       func(c *net.UnixConn) error { _, err := c.Write([]byte("\x00\xff garbage")); return err },
		"no descriptor": func(c *net.UnixConn) error { _, err := c.Write([]byte(good)); return err },
		"another one":   rights(good, null),
		"two":           rights(good, fd.Fd(), fd.Fd()),
		"twenty":        rights(good, make([]int, 20)...),
		"huge": func(c *net.UnixConn) error {
			_, err := c.Write([]byte("[" + strings.Repeat(" ", 2*maxHandshake)))
			return ignorePipe(err)
		},
		"cut short":      rights(good[:20], fd.Fd()),
		"overlapping":    rights("["+one+","+one+"]", fd.Fd()),
		"beyond the end": rights(`[{"base_host_virt_addr":1048576,"size":1048576,"offset":0}]`, fd.Fd()),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.socket})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := send(c); err != nil {
				t.Fatal(err)
			}
			c.CloseWrite()
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("answered with %d bytes, %v", n, err)
			}
			if st := r.Status(); st.State != StateWaiting {
				t.Errorf("state %s", st.State)
			}
		})
	}
	eventually(t, "descriptors to be closed", func() bool { return openDescriptors(t) <= before })
	v := startVMM(t)
	v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(64)})
	check(t, v, order{Last: 64, Threads: 2}, 0)

	second := startVMM(t)
	second.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(64)})
	check(t, v, order{Last: 64, Threads: 2}, 0)
	r.end(v)
}

// rights sends text with descriptors; 0 stands for standard input.
func rights(text string, fds ...int) func(c *net.UnixConn) error {
	return func(c *net.UnixConn) error {
		_, _, err := c.WriteMsgUnix([]byte(text), unix.UnixRights(fds...), nil)
		return err
	}
}

func ignorePipe(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// A description may come in pieces, the descriptor with the first of them.
func TestHandshakeInPieces(t *testing.T) {
	near, far := socketPair(t)
	fd, err := uffd.Open(0)
	if err != nil {
		t.Skipf("no userfaultfd here: %v", err)
	}
	defer fd.Close()
	text := "[" + one + "," + inTheGap + "]"
	go func() {
		for i := range text {
			oob := []byte(nil)
			if i == 0 {
				oob = unix.UnixRights(fd.Fd())
			}
			far.WriteMsgUnix([]byte(text[i:i+1]), oob, nil)
		}
	}()
	regions, got, err := receive(t.Context(), near)
	if err != nil || len(regions) != 2 {
		t.Fatalf("%v, %v", regions, err)
	}
	got.Close()
}

func socketPair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if near, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}
