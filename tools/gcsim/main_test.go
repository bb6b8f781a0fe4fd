package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lsad/tools/gcsim/sim"
)

func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := root()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.Execute()
	return out.String(), err
}

var tiny = []string{"--segments", "256", "--segment-blocks", "16", "--warm", "3", "--devices", "3", "--copies", "2", "--utilisation", "0.7"}

func TestRunJSONAndPlot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plot.svg")
	out, err := execute(t, append([]string{"run", "--json", "--plot", file}, tiny...)...)
	if err != nil {
		t.Fatal(err)
	}
	var reports []sim.Report
	if err := json.Unmarshal([]byte(out), &reports); err != nil {
		t.Fatalf("%v in %.200s", err, out)
	}
	if len(reports) != len(sim.Mechanisms) || reports[0].Reads.P9999 < reports[0].Reads.P50 || reports[0].Early == 0 || len(reports[0].Timeline) == 0 {
		t.Fatalf("%+v", reports)
	}
	picture, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(picture))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
	for _, want := range append([]string{"Read latency", "timers (lsad)"}, sim.Mechanisms[1:]...) {
		if !strings.Contains(string(picture), want) {
			t.Errorf("the plot does not say %q", want)
		}
	}
}

func TestTables(t *testing.T) {
	out, err := execute(t, append([]string{"run", "--mechanism", "timers"}, tiny...)...)
	if err != nil || !strings.Contains(out, "2+ collecting") {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = execute(t, append([]string{"curve", "--loads", "0.3", "--devices-list", "2"}, tiny...)...)
	if err != nil || strings.Count(out, "\n") != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = execute(t, "wa", "--blocks", "8192", "--segments", "300", "--segment-blocks", "32", "--writes", "2", "--policies", "greedy", "--traces", "zipf:0.9,hotcold")
	if err != nil || !strings.Contains(out, "interval") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestRunTraceFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace.csv")
	var b strings.Builder
	for i := range 40_000 {
		b.WriteString("7,W," + itoa((i*7919)%3000*4096) + ",4096," + itoa(1_000_000+i*40) + "\n")
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := execute(t, "run", "--trace-file", file, "--segment-blocks", "8", "--devices", "2", "--mechanism", "timers", "--warm", "0", "--json", "--utilisation", "0.7")
	if err != nil {
		t.Fatal(err)
	}
	var r []sim.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r[0].Writes.Count == 0 || r[0].Spec.Blocks != 3000 {
		t.Fatalf("%v: %.300s", err, out)
	}
}

func itoa(n int) string {
	data, _ := json.Marshal(n)
	return string(data)
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"run", "--mechanism", "luck"}, {"run", "--low", "0"}, {"run", "--period", "0s"}, {"run", "--policy", "best"},
		{"run", "--trace-file", "/nonexistent"}, {"run", "--reads", "1"}, {"run", "--chunk-blocks", "0"}, {"run", "--slowness", "0"}, {"wa", "--traces", "zipf:x"}, {"curve", "--utilisations", "1.5"},
		{"run", "--mechanism", ""}, {"run", "--rate", "NaN"}, {"run", "--duty", "NaN"}, {"run", "--length", "-1"}, {"run", "--length", "NaN"},
		{"run", "--warm", "-1"}, {"run", "--speeds", "1,-1,1,1"}, {"run", "--slowness", "Inf"}, {"curve", "--loads", "NaN"},
	} {
		if out, err := execute(t, append(args, "--segments", "128", "--segment-blocks", "8")...); err == nil {
			t.Errorf("%v was taken: %s", args, out)
		}
	}
}
