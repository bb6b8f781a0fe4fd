package lsa

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"lsad/lsa/blockmap"
	"lsad/lsa/format"
	"lsad/lsa/format/hexfile"
)

func TestGoldenSegmentRow(t *testing.T) {
	want := segmentRow{slot: 2, seg: 0x01020304, state: segSealed, class: originMoved, damaged: true, live: 77, used: 65530, generation: 5, firstLSN: 990, maxLSN: 1003}
	p := hexfile.Golden(t, "testdata/segmentrow.hex", "A sealed segment.", want.encode(), []hexfile.Field{
		{Size: 1, Name: "version"}, {Size: 1, Name: "state: 0 free, 1 ready, 2 open, 3 sealed"}, {Size: 1, Name: "class"}, {Size: 1, Name: "damaged"},
		{Size: 4, Name: "live blocks"}, {Size: 4, Name: "used sectors"}, {Size: 4, Name: "zero"}, {Size: 8, Name: "generation"}, {Size: 8, Name: "lowest LSN"}, {Size: 8, Name: "highest LSN"},
	})
	left := want
	left.left = 770
	hexfile.Golden(t, "testdata/segmentrow2.hex", "A sealed segment that blocks were moved away from.", left.encode(), []hexfile.Field{
		{Size: 1, Name: "version"}, {Size: 39, Name: "as in version 1"}, {Size: 8, Name: "number of the checkpoint"},
	})
	if got, err := decodeSegmentRow(segmentKey(left.slot, left.seg), left.encode()); err != nil || got != left {
		t.Fatalf("%+v became %+v, %v", left, got, err)
	}
	key := segmentKey(want.slot, want.seg)
	if string(key) != "s\x02\x01\x02\x03\x04" {
		t.Fatalf("key %x", key)
	}
	if got, err := decodeSegmentRow(key, p); err != nil || got != want {
		t.Fatalf("%+v became %+v, %v", want, got, err)
	}
}

// TestGoldenRows: the rows that are JSON, and the payloads of administrative
// records, keep their field names.
func TestGoldenRows(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	rows := []any{
		metaState{Version: 1, Array: format.UUID{1, 2}.String(), Epoch: 3, LSN: 1000, NextID: 9},
		layerRow{Layer: blockmap.Layer{ID: 4, Parent: 2}, Blocks: 12},
		layerRow{Layer: blockmap.Layer{ID: 5, MergeInto: 4, Merged: true}},
		&volume{Name: "v", ID: 1, Size: 4096, Head: 4, Created: at, Origin: "w@s", Snapshots: []snapshot{{Name: "s", Layer: 2, Size: 4096, Created: at}}},
		adminChange{Op: "clone", Volume: "v", Snapshot: "s", To: "w", ID: 7, Layer: 8, Size: 4096, Time: at},
		adminChange{Op: "delete", Volume: "v"},
		&volume{Name: "v", ID: 1, Size: 4096, Head: 4, Copies: 2, Created: at, Sealed: true, Attributes: json.RawMessage(`{"a":1}`), Turns: 3},
	}
	var lines []string
	for _, r := range rows {
		p, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(p))
	}
	want, err := os.ReadFile("testdata/rows.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines, "\n") + "\n"; got != string(want) {
		t.Fatalf("rows are\n%s\nand were\n%s", got, want)
	}
}

// FuzzSegmentRow: what is accepted is a row, and is the same when stored again.
func FuzzSegmentRow(f *testing.F) {
	r := segmentRow{state: segSealed, class: originMoved, live: 77, used: 512, generation: 5, firstLSN: 990, maxLSN: 1003}
	f.Add(segmentKey(1, 2), r.encode())
	r.left = 9
	f.Add(segmentKey(1, 2), r.encode())
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decodeSegmentRow(key, value)
		if err != nil {
			if !errors.Is(err, format.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if string(r.encode()) != string(value) || len(key) != 6 || r.state > segSealed {
			t.Fatalf("accepted %x, which is %+v", value, r)
		}
	})
}

// FuzzRows: no JSON row makes a reader panic.
func FuzzRows(f *testing.F) {
	text, err := os.ReadFile("testdata/rows.json")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		v := &volume{}
		var l layerRow
		var s metaState
		errs := []error{unmarshalRow(value, v), unmarshalRow(value, &l), unmarshalRow(value, &s)}
		for _, err := range errs {
			if err != nil && !errors.Is(err, format.ErrInvalid) {
				t.Fatal(err)
			}
		}
		if errs[0] == nil {
			if err := checkCatalog([]*volume{v}, []blockmap.Layer{{ID: 1}, {ID: 2, Parent: 1}}, 1<<62); err == nil && v.Size <= 0 {
				t.Fatalf("accepted %+v", v)
			}
		}
	})
}
