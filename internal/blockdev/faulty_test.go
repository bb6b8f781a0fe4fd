package blockdev

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
)

func TestFaulty(t *testing.T) {
	const at, n = 4096, 512
	ones, zeros := bytes.Repeat([]byte{1}, n), make([]byte, n)
	write := func(d Device) error { return d.WriteVec([][]byte{ones[:100], ones[100:]}, at) }
	read := func(d Device) error { return d.ReadAt(make([]byte, n), at) }
	syncIt := func(d Device) error { return d.Sync() }
	tests := []struct {
		name  string
		fault Fault
		do    func(Device) error
		fails []bool // of each call in turn
		// stored is what the device below has at `at` afterwards.
		stored []byte
	}{
		{"all writes fail", Fault{Kind: OpWrite, Err: ErrNoSpace}, write, []bool{true, true, true}, zeros},
		{"the second write fails", Fault{Kind: OpWrite, Skip: 1, Times: 1, Err: ErrNoSpace}, write, []bool{false, true, false}, ones},
		{"a write stops half-way", Fault{Kind: OpWrite, Done: 150, Err: ErrNoSpace}, write, []bool{true}, append(bytes.Clone(ones[:150]), zeros[150:]...)},
		{"a write of another range", Fault{Kind: OpWrite, Off: at + n, Len: 10, Err: ErrNoSpace}, write, []bool{false}, ones},
		{"a write that touches the range", Fault{Kind: OpWrite, Off: at + n - 1, Len: 10, Err: ErrNoSpace}, write, []bool{true}, zeros},
		{"a lost write", Fault{Kind: OpWrite}, write, []bool{false}, zeros},
		{"a misdirected write", Fault{Kind: OpWrite, Shift: 256}, write, []bool{false}, append(bytes.Clone(zeros[:256]), ones[256:]...)},
		{"the third sync fails", Fault{Kind: OpSync, Skip: 2, Times: 1, Err: fs.ErrInvalid}, syncIt, []bool{false, false, true, false}, zeros},
		{"reads fail", Fault{Kind: OpRead, Off: at, Len: 1, Err: fs.ErrInvalid}, read, []bool{true, true}, zeros},
		{"reads elsewhere fail", Fault{Kind: OpRead, Off: 0, Len: at, Err: fs.ErrInvalid}, read, []bool{false}, zeros},
		{"allocating fails", Fault{Kind: OpAllocate, Err: ErrNoSpace}, func(d Device) error { return d.Allocate(at, n) }, []bool{true}, zeros},
		{"discarding fails", Fault{Kind: OpDiscard, Err: fs.ErrInvalid}, func(d Device) error { return d.Discard(at, n) }, []bool{true}, zeros},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := NewMem("m", 1<<20)
			f := NewFaulty(m)
			f.Inject(test.fault)
			failed := 0
			for i, want := range test.fails {
				err := test.do(f)
				if want != (err != nil) || want && !errors.Is(err, test.fault.Err) {
					t.Errorf("call %d: got %v", i, err)
				}
				if want {
					failed++
				}
			}
			if test.fault.Err != nil && f.Hits() != failed {
				t.Errorf("%d hits counted of %d", f.Hits(), failed)
			}
			if got := contents(t, m)[at : at+n]; !bytes.Equal(got, test.stored) {
				t.Error("other bytes are stored than should be")
			}
			f.Heal()
			if err := test.do(f); err != nil {
				t.Errorf("after Heal: %v", err)
			}
		})
	}
}

func TestFaultyReadsThatLie(t *testing.T) {
	m := NewMem("m", 1<<20)
	if err := m.WriteVec([][]byte{{1, 2, 3, 4}}, 0); err != nil {
		t.Fatal(err)
	}
	f := NewFaulty(m)
	f.Inject(Fault{Kind: OpRead, Times: 1, Shift: 2})
	f.Inject(Fault{Kind: OpRead, Times: 1})
	p := []byte{9, 9}
	if err := f.TryReadAt(p, 0); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("TryReadAt went past a fault of reads: %v", err)
	}
	for _, want := range [][]byte{{3, 4}, {0, 0}, {1, 2}} {
		if err := f.ReadAt(p, 0); err != nil || !bytes.Equal(p, want) {
			t.Errorf("read %v, %v; want %v", p, err, want)
		}
	}
	f.Inject(Fault{Kind: OpTryRead, Err: ErrWouldBlock})
	if err := f.TryReadAt(p, 0); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("TryReadAt: got %v", err)
	}
}

func TestFaultyPassesOn(t *testing.T) {
	checkDevice(t, NewFaulty(NewMem("m", 1<<20)), true)
}
