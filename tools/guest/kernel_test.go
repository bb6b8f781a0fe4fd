package guest

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	names := []string{
		"linux-image-6.12.117+deb12-cloud-amd64",
		"linux-image-6.12.9+deb12-cloud-amd64",
		"linux-image-6.12.117+deb13-cloud-amd64",
		"linux-image-6.12.20+deb12-cloud-amd64",
	}
	slices.SortFunc(names, compareVersions)
	want := []string{
		"linux-image-6.12.9+deb12-cloud-amd64",
		"linux-image-6.12.20+deb12-cloud-amd64",
		"linux-image-6.12.117+deb12-cloud-amd64",
		"linux-image-6.12.117+deb13-cloud-amd64",
	}
	if !slices.Equal(names, want) {
		t.Errorf("sorted to %q", names)
	}
}

// bzImage makes a file with a boot header and a payload of five bytes.
func bzImage() []byte {
	raw := make([]byte, 2*512+16)
	raw[setupSectsOffset] = 1
	copy(raw[headerMagicOffset:], "HdrS")
	binary.LittleEndian.PutUint16(raw[headerVersionOffset:], 0x20f)
	binary.LittleEndian.PutUint32(raw[payloadOffsetOffset:], 3)
	binary.LittleEndian.PutUint32(raw[payloadLengthOffset:], 9)
	copy(raw[2*512+3:], "hello....")
	return raw
}

func TestKernelPayload(t *testing.T) {
	if got, err := kernelPayload(bzImage()); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, damage := range map[string]func(raw []byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"short":            func(raw []byte) []byte { return raw[:headerEnd-1] },
		"no magic":         func(raw []byte) []byte { raw[headerMagicOffset] ^= 1; return raw },
		"old protocol":     func(raw []byte) []byte { raw[headerVersionOffset] = 7; return raw },
		"payload too long": func(raw []byte) []byte { raw[payloadLengthOffset] = 99; return raw },
		"payload too far":  func(raw []byte) []byte { raw[payloadOffsetOffset+3] = 0xff; return raw },
		"no payload":       func(raw []byte) []byte { raw[payloadLengthOffset] = 3; return raw },
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := kernelPayload(damage(bzImage())); !errors.Is(err, errImage) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzKernelPayload(f *testing.F) {
	f.Add(bzImage())
	f.Add([]byte("HdrS"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := kernelPayload(raw); err == nil && len(got) > len(raw) {
			t.Errorf("a payload of %d bytes in a file of %d", len(got), len(raw))
		}
	})
}

// TestCachedKernel holds that the newest kernel is taken, and that an unfinished
// download is none.
func TestCachedKernel(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "fetch-123"), 0o755); err != nil {
		t.Fatal(err)
	}
	if k, err := cachedKernel(dir, DefaultSeries); k != nil || err != nil {
		t.Fatalf("an empty cache has %+v, %v", k, err)
	}
	for _, release := range []string{"6.12.99+deb12-cloud-amd64", "6.12.100+deb12-cloud-amd64", "6.1.0-56-cloud-amd64", "6.13.1-cloud-amd64"} {
		if err := os.Mkdir(filepath.Join(dir, kernelPrefix+release), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k, err := cachedKernel(dir, DefaultSeries)
	if err != nil || k.Release != "6.12.100+deb12-cloud-amd64" {
		t.Fatalf("got %+v, %v", k, err)
	}
}

// TestUnavailable holds that a machine without QEMU or without apt is told
// apart from a failure, since the one skips tests and the other fails them.
func TestUnavailable(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(CacheEnv, t.TempDir())
	if _, err := Boot(t.Context(), Options{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Boot: %v", err)
	}
	if _, err := Prepare(t.Context(), DefaultSeries); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Prepare: %v", err)
	}
}
