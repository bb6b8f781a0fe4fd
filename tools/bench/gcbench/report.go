package gcbench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Mode is what collects in a set-up.
type Mode string

// The set-ups that are compared.
const (
	Off         Mode = "off"          // nothing: so much spare capacity that no segment is ever collected
	Timed       Mode = "timed"        // the mechanism, at its defaults
	DefaultOnly Mode = "default-only" // no timers: every collection is forced
)

// Window is what one stretch of time showed.
type Window struct {
	Read        Latency            `json:"read"`
	Write       Latency            `json:"write"`
	Collections Collections        `json:"collections"`
	UserBytes   float64            `json:"user_bytes"`      // that clients wrote, with copies
	MovedBytes  float64            `json:"moved_bytes"`     // that collections wrote
	LogBytes    float64            `json:"log_bytes"`       // all of it, headers too
	LongWaits   map[string]float64 `json:"waits_over_50ms"` // of writers, attributed by the server, by cause
	Waits       map[string]float64 `json:"waits"`           // of any length
	Checkpoints float64            `json:"checkpoints"`
	ServerCPU   float64            `json:"server_cpu"` // processors in use
	Starved     float64            `json:"cpu_wait"`   // threads of the server that wait for a processor, on average
}

// Take fills in what the server's metrics say, which were read before and after.
func (w *Window) Take(before, after map[string]float64) {
	delta := func(name string) float64 { return after[name] - before[name] }
	w.UserBytes = delta(`lsad_log_bytes_total{kind="user"}`)
	w.MovedBytes = delta(`lsad_log_bytes_total{kind="collected"}`)
	w.LogBytes = w.UserBytes + w.MovedBytes + delta(`lsad_log_bytes_total{kind="overhead"}`)
	w.Checkpoints = delta("lsad_checkpoints_total")
	w.LongWaits, w.Waits = map[string]float64{}, map[string]float64{}
	for _, cause := range []string{"room", "pace", "map"} {
		w.Waits[cause] = delta(`lsad_write_wait_seconds_count{cause="` + cause + `"}`)
		w.LongWaits[cause] = w.Waits[cause] - delta(`lsad_write_wait_seconds_bucket{cause="`+cause+`",le="0.05"}`)
	}
}

// Setup is what one set-up showed.
type Setup struct {
	Mode    Mode     `json:"mode"`
	Copies  int      `json:"copies"`
	Windows []Window `json:"windows"`
}

// median of a figure over the windows.
func (s *Setup) median(f func(*Window) float64) float64 {
	var all []float64
	for i := range s.Windows {
		all = append(all, f(&s.Windows[i]))
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// sum of a figure over the windows.
func (s *Setup) sum(f func(*Window) float64) float64 {
	total := 0.0
	for i := range s.Windows {
		total += f(&s.Windows[i])
	}
	return total
}

// Report is the outcome.
type Report struct {
	Preface []string `json:"preface"`
	Setups  []Setup  `json:"setups"`
	Targets []Target `json:"targets"`
}

// Target is something to reach.
type Target struct {
	Text  string  `json:"text"`
	Value float64 `json:"value"`
	Most  float64 `json:"most"`
	Met   bool    `json:"met"`
}

func readTail(w *Window) float64 { return w.Read.P999 }

// longWaits are the waits for room that collection makes, and those that keep collection ahead.
func longWaits(w *Window) float64 { return w.LongWaits["room"] + w.LongWaits["pace"] }

// Judge fills in the targets.
func (r *Report) Judge() {
	r.Targets = nil
	off := map[int]float64{}
	for i := range r.Setups {
		if s := &r.Setups[i]; s.Mode == Off {
			off[s.Copies] = s.median(readTail)
		}
	}
	for i := range r.Setups {
		s := &r.Setups[i]
		if s.Mode != Timed {
			continue
		}
		if base := off[s.Copies]; base > 0 {
			most := map[int]float64{1: 2, 2: 1.2}[s.Copies]
			v := s.median(readTail) / base
			r.Targets = append(r.Targets, Target{fmt.Sprintf("read p99.9 to that without collection, %s", copies(s.Copies)), v, most, v <= most})
		}
		v := s.sum(longWaits)
		r.Targets = append(r.Targets, Target{fmt.Sprintf("writes that waited over 50 ms because of collection, %s", copies(s.Copies)), v, 0, v == 0})
	}
}

func copies(n int) string {
	if n == 1 {
		return "one copy"
	}
	return "two copies"
}

// latencies is the table of what clients noticed, in microseconds.
func (r *Report) latencies() [][]string {
	t := [][]string{{"collection", "read p50", "p99", "p99.9", "p99.99", "max", "write p50", "p99", "p99.9", "p99.99", "max", "> 50 ms"}}
	for i := range r.Setups {
		s := &r.Setups[i]
		row := []string{fmt.Sprintf("%s, %s", s.Mode, copies(s.Copies))}
		for _, of := range []func(*Window) *Latency{func(w *Window) *Latency { return &w.Read }, func(w *Window) *Latency { return &w.Write }} {
			for _, f := range []func(*Latency) float64{
				func(l *Latency) float64 { return l.P50 }, func(l *Latency) float64 { return l.P99 }, func(l *Latency) float64 { return l.P999 },
				func(l *Latency) float64 { return l.P9999 }, func(l *Latency) float64 { return l.Max },
			} {
				row = append(row, fmt.Sprintf("%.0f", s.median(func(w *Window) float64 { return f(of(w)) })))
			}
		}
		t = append(t, append(row, fmt.Sprintf("%.0f", s.sum(func(w *Window) float64 { return float64(w.Write.Above) }))))
	}
	return t
}

// collections is the table of what the server did.
func (r *Report) collections() [][]string {
	t := [][]string{{"collection", "early", "forced", "0 devices", "1", "2 or more", "devices x duty", "rewritten", "log", "waits > 50 ms", "CPU", "waiting for CPU"}}
	for i := range r.Setups {
		s := &r.Setups[i]
		share := func(f func(*Collections) float64) string {
			return fmt.Sprintf("%.2f %%", 100*s.median(func(w *Window) float64 { return f(&w.Collections) }))
		}
		user := s.sum(func(w *Window) float64 { return w.UserBytes })
		t = append(t, []string{
			fmt.Sprintf("%s, %s", s.Mode, copies(s.Copies)),
			fmt.Sprintf("%.0f", s.sum(func(w *Window) float64 { return float64(w.Collections.Early) })),
			fmt.Sprintf("%.0f", s.sum(func(w *Window) float64 { return float64(w.Collections.Forced) })),
			share(func(c *Collections) float64 { return c.Collecting[0] }),
			share(func(c *Collections) float64 { return c.Collecting[1] }),
			share((*Collections).Overlap),
			fmt.Sprintf("%.2f", s.median(func(w *Window) float64 { return w.Collections.Duty })),
			fmt.Sprintf("%.2fx", 1+s.sum(func(w *Window) float64 { return w.MovedBytes })/user),
			fmt.Sprintf("%.2fx", s.sum(func(w *Window) float64 { return w.LogBytes })/user),
			fmt.Sprintf("%.0f", s.sum(longWaits)),
			fmt.Sprintf("%.2f", s.median(func(w *Window) float64 { return w.ServerCPU })),
			fmt.Sprintf("%.2f", s.median(func(w *Window) float64 { return w.Starved })),
		})
	}
	return t
}

// targets is the table of what was to be reached.
func (r *Report) targets() [][]string {
	t := [][]string{{"target", "at most", "measured", ""}}
	for _, x := range r.Targets {
		word := "not met"
		if x.Met {
			word = "met"
		}
		t = append(t, []string{x.Text, fmt.Sprintf("%g", x.Most), fmt.Sprintf("%.2f", x.Value), word})
	}
	return t
}

const legend = "Times in microseconds, medians over the windows; counts are sums. Rewritten: what users wrote and collections moved, to what users wrote; " +
	"log: with headers. CPU: processors that the server uses, and threads of it that wait for one, which is latency that no disk made. Waits are those that the server attributes to collection."

// Write prints the report, as Markdown or for a terminal.
func (r *Report) Write(w io.Writer, markdown bool) error {
	for _, line := range r.Preface {
		if markdown {
			line = "- " + line
		}
		fmt.Fprintln(w, line)
	}
	for _, table := range [][][]string{r.latencies(), r.collections(), r.targets()} {
		fmt.Fprintln(w)
		if err := writeTable(w, table, markdown); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", legend)
	return err
}

func writeTable(w io.Writer, table [][]string, markdown bool) error {
	if markdown {
		for i, cells := range table {
			fmt.Fprintln(w, "|", strings.Join(cells, " | "), "|")
			if i == 0 {
				fmt.Fprintln(w, "|"+strings.Repeat("---|", len(cells)))
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, cells := range table {
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}
