package ublk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestCommands holds the numbers of commands as <linux/ublk_cmd.h> computes them.
func TestCommands(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uint32
	}{
		{"GET_DEV_INFO", cmdGetInfo, 0x80207502},
		{"ADD_DEV", cmdAdd, 0xc0207504},
		{"STOP_DEV", cmdStop, 0xc0207507},
		{"GET_PARAMS", cmdGetParams, 0x80207509},
		{"END_USER_RECOVERY", cmdEndRecovery, 0xc0207511},
		{"DEL_DEV_ASYNC", cmdDeleteAsync, 0x80207514},
		{"FETCH_REQ", cmdFetch, 0xc0107520},
		{"COMMIT_AND_FETCH_REQ", cmdCommitAndFetch, 0xc0107521},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
	if unsafe.Sizeof(desc{}) != descSize {
		t.Errorf("a request has %d bytes, want %d", unsafe.Sizeof(desc{}), descSize)
	}
}

// golden compares bytes with annotated hexadecimal: what follows # is a comment.
func golden(t *testing.T, what string, got []byte, annotated string) {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(annotated) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	want, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, hex.Dump(got), hex.Dump(want))
	}
}

// TestStructures holds the bytes that go to the kernel.
func TestStructures(t *testing.T) {
	golden(t, "command", (&control{id: 7, addr: 0x1122334455667788, len: 64, data: 4711}).encode(), `
		07000000 ffff 4000       # device, no queue, length
		8877665544332211         # address
		6712000000000000         # data
		0000000000000000`)
	i := Info{ID: 3, Queues: 2, Depth: 128, PID: 99, Key: 0xabcdef, maxRequest: 512 << 10, features: featureRecovery | featureRecoveryReissue}
	golden(t, "device", i.encode(), `
		0200 8000 0000 0000      # queues, depth, state
		00000800 03000000        # longest request, device
		63000000 00000000        # process
		1800000000000000         # features
		efcdab0000000000         # key
		0000000000000000 0000000000000000 0000000000000000`)
	golden(t, "parameters", (&params{sectors: 2048, maxSectors: 1024}).encode(), `
		3c000000 03000000        # length; basic and discard
		0c000000                 # cache, FUA
		09 0c 0c 0c              # block sizes: logical, physical, best, least
		00040000 00000000        # longest request, chunk
		0008000000000000         # size
		0000000000000000         # boundary
		00000000 00100000        # discard: alignment, granularity
		f8ff7f00 f8ff7f00        # longest discard and write-zeroes
		0100 0000`)
	golden(t, "parameters, read-only", (&params{sectors: 8, maxSectors: 8, readOnly: true}).encode(), `
		3c000000 01000000 01000000 09 0c 0c 0c 08000000 00000000 0800000000000000 0000000000000000
		00000000 00000000 00000000 00000000 0000 0000`)
}

// TestInfo holds that what the kernel tells comes out as it went in.
func TestInfo(t *testing.T) {
	in := Info{ID: 5, Queues: 4, Depth: 64, PID: -1, Key: 1 << 63, maxRequest: 4096, features: 1 << 40}
	var out Info
	out.decode(in.encode())
	if out != in {
		t.Errorf("%+v, want %+v", out, in)
	}
	p := params{sectors: 12345, maxSectors: 8, readOnly: true}
	var q params
	q.decode(p.encode())
	if q != p {
		t.Errorf("%+v, want %+v", q, p)
	}
}

func TestResult(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int32
	}{
		{nil, 4096},
		{fmt.Errorf("write: %w", unix.ENOSPC), -int32(unix.ENOSPC)},
		{errors.New("damaged"), -int32(unix.EIO)},
		{fmt.Errorf("odd: %w", unix.Errno(0)), -int32(unix.EIO)},
	} {
		if got := resultOf(4096, c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// TestRefused holds what is refused without asking the kernel, and what is said where there is no driver.
func TestRefused(t *testing.T) {
	for _, o := range []Options{{Queues: -1}, {Queues: MaxQueues + 1}, {Depth: -1}, {Depth: MaxDepth + 1}} {
		if _, err := Add(&memory{size: 4096}, o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := Add(&memory{size: 100}, Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a device of 100 bytes: %v", err)
	}
	err := Available()
	if err == nil {
		t.Skip("this machine has a ublk driver, and could use it")
	}
	if !errors.Is(err, ErrNoDriver) && !errors.Is(err, ErrPermission) {
		t.Error(err)
	}
	if _, err := Add(&memory{size: 4096}, Options{}); !errors.Is(err, ErrNoDriver) && !errors.Is(err, ErrPermission) {
		t.Error(err)
	}
	if all, err := Devices(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}
