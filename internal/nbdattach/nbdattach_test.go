package nbdattach

import (
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"lsad/internal/nbdclient"
)

func TestParseDevice(t *testing.T) {
	for name, want := range map[string]int{"/dev/nbd0": 0, "/dev/nbd15": 15} {
		if got, err := ParseDevice(name); err != nil || got != want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "nbd0", "/dev/nbd", "/dev/nbd-1", "/dev/nbd01", "/dev/nbd0p1", "/dev/sda", "/dev/nbd99999999"} {
		if _, err := ParseDevice(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestBackend holds that what the kernel keeps is read back as it was, and that what others left there is not taken
// for ours.
func TestBackend(t *testing.T) {
	b := backend{4, "0123456789abcdef-2", "nbd+unix:///my%20vol?socket=/run/a b.sock"}
	if got, ok := parseBackend(b.String()); !ok || got != b {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, bad := range []string{"", "disk1", "lsad1 0 x nbd://h/v", "lsad1 17 x nbd://h/v", "lsad1 2 x", "lsad2 2 x nbd://h/v"} {
		if got, ok := parseBackend(bad); ok {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func TestIncarnation(t *testing.T) {
	for text, want := range map[string]string{
		"volume of 10 GiB, incarnation 0123456789abcdef-2": "0123456789abcdef-2",
		"volume of 10 GiB":      unknownIncarnation,
		"incarnation of Vishnu": unknownIncarnation,
		"":                      unknownIncarnation,
	} {
		if got := incarnation(nbdclient.Info{Description: text}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestMessages holds what the kernel is told, and what is understood of its answers.
func TestMessages(t *testing.T) {
	v := device{index: 3, size: 1 << 30, blockSize: 512, flags: 7, timeout: 15 * time.Second, deadTimeout: time.Minute, backend: "x", sockets: []int{8, 9}}
	ae := netlink.NewAttributeEncoder()
	v.encode(ae)
	data, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		t.Fatal(err)
	}
	var sockets []int
	got := map[uint16]uint64{}
	for ad.Next() {
		switch ad.Type() {
		case attrSockets:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(item *netlink.AttributeDecoder) error {
						for item.Next() {
							sockets = append(sockets, int(item.Uint32()))
						}
						return nil
					})
				}
				return nil
			})
		case attrBackend:
			if ad.String() != "x" {
				t.Errorf("backend %q", ad.String())
			}
		case attrIndex:
			got[attrIndex] = uint64(ad.Uint32())
		default:
			got[ad.Type()] = ad.Uint64()
		}
	}
	want := map[uint16]uint64{attrIndex: 3, attrSize: 1 << 30, attrBlockSize: 512, attrTimeout: 15, attrServerFlags: 7, attrDeadTimeout: 60}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("attribute %d is %d, want %d", k, got[k], n)
		}
	}
	if !slices.Equal(sockets, []int{8, 9}) || ad.Err() != nil {
		t.Errorf("sockets %v, %v", sockets, ad.Err())
	}
	index := binary.NativeEndian.AppendUint32([]byte{8, 0, attrIndex, 0}, 3)
	for _, c := range []struct {
		command uint8
		data    []byte
		want    bool
	}{
		{cmdLinkDead, index, true},
		{cmdStatus, index, false},
		{cmdLinkDead, binary.NativeEndian.AppendUint32([]byte{8, 0, attrIndex, 0}, 4), false},
		{cmdLinkDead, []byte{1, 2, 3}, false},
	} {
		if got := isLinkDead(genetlink.Message{Header: genetlink.Header{Command: c.command}, Data: c.data}, 3); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestRefused holds what ends before the kernel is asked.
func TestRefused(t *testing.T) {
	_, err := Attach(t.Context(), Options{Target: nbdclient.Target{TLS: true}, Device: -1})
	if !errors.Is(err, ErrTLS) {
		t.Error(err)
	}
	if err := Detach("/dev/sda", true); !errors.Is(err, ErrName) {
		t.Error(err)
	}
	d, err := openDriver()
	if err == nil {
		d.close()
		t.Skip("this machine has the kernel's NBD client")
	}
	if !errors.Is(err, ErrNoDriver) && !errors.Is(err, ErrPermission) {
		t.Error(err)
	}
	if all, err := List(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestDescriptors holds that descriptors of connections can be had, and stay theirs.
func TestDescriptors(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if fds := descriptors([]net.Conn{c}); len(fds) != 1 || fds[0] <= 2 {
		t.Errorf("%v", fds)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	closeAll([]net.Conn{c})
	if fds := descriptors([]net.Conn{c}); fds != nil {
		t.Errorf("of a closed connection: %v", fds)
	}
}

func TestIdle(t *testing.T) {
	for text, want := range map[string]bool{"       0        0": true, "       1        0": false, "0 3": false, "": false} {
		if got := idle(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
