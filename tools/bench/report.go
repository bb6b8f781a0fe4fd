package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the outcome of a comparison.
type report struct {
	Date    time.Time    `json:"date"`
	Command string       `json:"command"`
	Machine machine      `json:"machine"`
	Size    int64        `json:"size_bytes"`
	Runtime float64      `json:"runtime_seconds"`
	Rounds  int          `json:"rounds"`
	Warmed  int64        `json:"warmed_bytes"`
	Servers []string     `json:"servers"`
	Lines   []reportLine `json:"rows"`
}

// reportLine is one figure of one row, for all servers.
type reportLine struct {
	Row     string                `json:"row"`
	Title   string                `json:"title"`
	Unit    string                `json:"unit"`
	Less    bool                  `json:"less_is_better"`
	Target  float64               `json:"target"` // of lsad's ratio
	Met     *bool                 `json:"met"`    // null if it could not be compared
	Results map[string]*lineValue `json:"servers"`
}

// lineValue is what one server did.
type lineValue struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Ratio  float64   `json:"ratio"`         // of the median to the reference's; 0 if there is none
	Server float64   `json:"server_cpu_us"` // processor time of the server for each I/O, the median
	Client float64   `json:"client_cpu_us"` // and that of fio
	Values []float64 `json:"values"`
}

func summarize(values []float64) *lineValue {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	v := &lineValue{Values: values, Min: sorted[0], Max: sorted[n-1], Median: sorted[n/2]}
	if n%2 == 0 {
		v.Median = (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return v
}

// spread is how far the values lie apart, as a share of the median.
func (v *lineValue) spread() float64 {
	if v.Median == 0 {
		return 0
	}
	return (v.Max - v.Min) / v.Median
}

func (c *comparison) report(m machine, rounds int, warmed int64, command string) *report {
	rep := &report{
		Date: time.Now().UTC().Truncate(time.Second), Command: "go run ./tools/bench " + command, Machine: m,
		Size: c.size, Runtime: c.runtime.Seconds(), Rounds: rounds, Warmed: warmed,
	}
	for _, s := range c.servers {
		rep.Servers = append(rep.Servers, s.name)
	}
	for i := range c.rows {
		r := &c.rows[i]
		for _, f := range r.figures {
			rep.Lines = append(rep.Lines, newLine(r, f, c.results[r.name]))
		}
	}
	return rep
}

func newLine(r *row, f figure, results map[string][]fioResult) reportLine {
	l := reportLine{
		Row: r.name, Title: r.title + f.title, Unit: f.unit, Less: f.less, Target: f.target,
		Results: map[string]*lineValue{},
	}
	for name, list := range results {
		l.Results[name] = summarize(each(list, f.value))
		l.Results[name].Server = summarize(each(list, func(r fioResult) float64 { return r.ServerCPU })).Median
		l.Results[name].Client = summarize(each(list, func(r fioResult) float64 { return r.ClientCPU })).Median
	}
	base := l.Results[reference]
	if base == nil || base.Median == 0 {
		return l
	}
	for _, v := range l.Results {
		v.Ratio = v.Median / base.Median
	}
	if v := l.Results["lsad"]; v != nil {
		ok := met(f, v.Ratio)
		l.Met = &ok
	}
	return l
}

func each(list []fioResult, value func(fioResult) float64) []float64 {
	values := make([]float64, len(list))
	for i := range list {
		values[i] = value(list[i])
	}
	return values
}

func (l *reportLine) targetText() string {
	if l.Less {
		return fmt.Sprintf("<= %.2fx", l.Target)
	}
	return fmt.Sprintf(">= %.2fx", l.Target)
}

func (l *reportLine) metText() string {
	switch {
	case l.Met == nil:
		return "-"
	case *l.Met:
		return "met"
	}
	return "not met"
}

// cell is a server's value with its ratio and spread.
func (l *reportLine) cell(name string) string {
	v := l.Results[name]
	if v == nil {
		return "-"
	}
	text := formatValue(v.Median)
	if v.Ratio > 0 && name != reference {
		text += fmt.Sprintf(" (%.2fx)", v.Ratio)
	}
	if len(v.Values) > 1 {
		text += fmt.Sprintf(" ±%.0f%%", v.spread()*50)
	}
	return text
}

func formatValue(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// table is the report as rows of cells, the first of them the heading.
func (rep *report) table() [][]string {
	all := [][]string{append([]string{"row", "unit"}, append(slices.Clone(rep.Servers), "target", "lsad")...)}
	for i := range rep.Lines {
		l := &rep.Lines[i]
		cells := []string{l.Title, l.Unit}
		for _, name := range rep.Servers {
			cells = append(cells, l.cell(name))
		}
		all = append(all, append(cells, l.targetText(), l.metText()))
	}
	return all
}

// cpuTable says what each I/O of a row costs, at the server and at fio, in microseconds of processor time.
func (rep *report) cpuTable() [][]string {
	all := [][]string{append([]string{"CPU for each I/O, us: server + fio"}, rep.Servers...)}
	last := ""
	for i := range rep.Lines {
		l := &rep.Lines[i]
		if l.Row == last {
			continue
		}
		last = l.Row
		cells := []string{strings.TrimSuffix(l.Title, ", mean")}
		for _, name := range rep.Servers {
			cell := "-"
			if v := l.Results[name]; v != nil {
				cell = fmt.Sprintf("%.1f + %.1f", v.Server, v.Client)
			}
			cells = append(cells, cell)
		}
		all = append(all, cells)
	}
	return all
}

func (rep *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(rep)
}

func (rep *report) writeText(w io.Writer) error {
	for _, line := range rep.preface() {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	for _, table := range [][][]string{rep.table(), rep.cpuTable()} {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, cells := range table {
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintln(w, legend)
	return err
}

const legend = "Medians; in brackets the ratio to nbdkit's; ± is half the distance between the lowest and the highest round. " +
	"A dash: not measured. go-nbd's server cannot flush."

func (rep *report) writeMarkdown(w io.Writer) error {
	for _, line := range rep.preface() {
		fmt.Fprintln(w, "-", line)
	}
	fmt.Fprintln(w)
	for _, table := range [][][]string{rep.table(), rep.cpuTable()} {
		for i, cells := range table {
			fmt.Fprintln(w, "|", strings.Join(cells, " | "), "|")
			if i == 0 {
				fmt.Fprintln(w, "|"+strings.Repeat("---|", len(cells)))
			}
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintln(w, legend)
	return err
}

func (rep *report) preface() []string {
	m := &rep.Machine
	return []string{
		"Command: `" + rep.Command + "`, " + rep.Date.Format(time.DateOnly),
		fmt.Sprintf("Machine: %s, %d cores, %s, %s, %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.FileSystem),
		"Programs: " + strings.Join(m.Programs, "; "),
		fmt.Sprintf("Exports of %.0f MiB, %d rounds of %gs, %.0f MiB of memory touched beforehand",
			float64(rep.Size)/(1<<20), rep.Rounds, rep.Runtime, float64(rep.Warmed)/(1<<20)),
	}
}
