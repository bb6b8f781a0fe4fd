package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		values           []float64
		median, min, max float64
	}{
		{[]float64{7}, 7, 7, 7},
		{[]float64{9, 1, 5}, 5, 1, 9},
		{[]float64{8, 2, 4, 6}, 5, 2, 8},
	} {
		v := summarize(c.values)
		if v.Median != c.median || v.Min != c.min || v.Max != c.max {
			t.Errorf("%v: got median %v, min %v, max %v", c.values, v.Median, v.Min, v.Max)
		}
	}
	if got := summarize([]float64{90, 110, 100}).spread(); got != 0.2 {
		t.Errorf("spread: got %v, want 0.2", got)
	}
}

// results of two servers in the unit that both figures below read.
func results(lsad, other float64) map[string][]fioResult {
	return map[string][]fioResult{
		"lsad":    {{IOPS: lsad, MeanLatency: lsad}},
		reference: {{IOPS: other, MeanLatency: other}},
	}
}

func TestTargets(t *testing.T) {
	more, less := iops(2)[0], latency(1.15)[0]
	for _, c := range []struct {
		name        string
		figure      figure
		lsad, other float64
		met         bool
	}{
		{"twice as many", more, 200, 100, true},
		{"not quite twice as many", more, 199, 100, false},
		{"latency a little longer", less, 115, 100, true},
		{"latency too long", less, 116, 100, false},
		{"latency shorter", less, 50, 100, true},
	} {
		l := newLine(&row{name: "x"}, c.figure, results(c.lsad, c.other))
		if l.Met == nil || *l.Met != c.met {
			t.Errorf("%s: got %s, want met %v", c.name, l.metText(), c.met)
		}
		if got := l.Results["lsad"].Ratio; got != c.lsad/c.other {
			t.Errorf("%s: ratio %v", c.name, got)
		}
	}
}

func TestLineWithoutReference(t *testing.T) {
	all := results(1, 1)
	delete(all, reference)
	l := newLine(&row{}, iops(2)[0], all)
	if l.Met != nil || l.metText() != "-" || l.Results["lsad"].Ratio != 0 {
		t.Errorf("nothing to compare with: got %+v", l)
	}
}

func testReport() *report {
	c := &comparison{
		size: 1 << 30, runtime: time.Second, rows: []row{rows[0], rows[2]},
		servers: []*server{{name: "lsad"}, {name: reference}, {name: "go-nbd"}},
		results: map[string]map[string][]fioResult{
			rows[0].name: {"lsad": {{IOPS: 300}, {IOPS: 290}, {IOPS: 310}}, reference: {{IOPS: 100}}, "go-nbd": {{IOPS: 50}}},
			rows[2].name: {"lsad": {{IOPS: 11}}, reference: {{IOPS: 10}}},
		},
	}
	return c.report(machine{CPU: "CPU", Cores: 2}, 3, 1<<20, "nbd")
}

func TestMarkdown(t *testing.T) {
	var out bytes.Buffer
	if err := testReport().writeMarkdown(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| row | unit | lsad | nbdkit | go-nbd | target | lsad |\n|---|---|---|---|---|---|---|\n",
		"| 4 KiB random write, depth 32 | IOPS | 300 (3.00x) ±3% | 100 | 50.0 (0.50x) | >= 2.00x | met |\n",
		"| 4 KiB random write, depth 16, a flush after each | IOPS | 11.0 (1.10x) | 10.0 | - | >= 1.20x | not met |\n",
		"- Command: `go run ./tools/bench nbd`",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := testReport().writeJSON(&out); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	l := got.Lines[0]
	if l.Results["lsad"].Median != 300 || len(l.Results["lsad"].Values) != 3 || l.Met == nil || !*l.Met {
		t.Errorf("got %+v", l)
	}
}

func TestChooseRows(t *testing.T) {
	all, err := chooseRows(nil)
	if err != nil || len(all) != len(rows) {
		t.Errorf("none named: %d rows, %v; want all", len(all), err)
	}
	two, err := chooseRows([]string{"seqread", "flush16"})
	if err != nil || len(two) != 2 || two[0].name != "seqread" || two[1].name != "flush16" {
		t.Errorf("got %v, %v", two, err)
	}
	if _, err := chooseRows([]string{"seqraed"}); err == nil || !strings.Contains(err.Error(), "seqread") {
		t.Errorf("a row that does not exist: got %v, want an error that names those that do", err)
	}
}
