package localbench

import (
	"strings"
	"testing"
)

func TestIOPS(t *testing.T) {
	got, err := iops("note: both iodepth >= 1\n" + `{"jobs":[{"read":{"iops":12.5},"write":{"iops":0}}]}`)
	if err != nil || got != 12.5 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"jobs":[]}`, "fio: failed"} {
		if _, err := iops(bad); err == nil {
			t.Errorf("%q is taken for fio's output", bad)
		}
	}
}

func TestReport(t *testing.T) {
	var b strings.Builder
	err := report(&b, []Result{
		{Row: rows[0].name, Disk: "ublk", Median: 300, Least: 290, Most: 310},
		{Row: rows[0].name, Disk: "nbd", Median: 200, Least: 190, Most: 210},
		{Row: firstIO, Disk: "ublk", Median: 40},
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if !strings.Contains(lines[1], "300 (290..310)") || !strings.Contains(lines[1], "1.50") || len(lines) != len(rowNames())+2 {
		t.Errorf("%s", b.String())
	}
}
