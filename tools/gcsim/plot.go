package main

import (
	"bytes"
	"fmt"
	"math"

	"lsad/tools/gcsim/sim"
)

// Sizes of the plot in pixels.
const (
	plotWidth  = 1000
	leftMargin = 150
	rowHeight  = 13
	rowGap     = 3
	panelGap   = 34
	curvesHigh = 270
)

// Colours of the plot. The mechanisms' are told apart by colour-blind readers too (Okabe and Ito's palette).
const (
	ink      = "#1f2933"
	faint    = "#7b8794"
	grid     = "#e4e7eb"
	lane     = "#f5f7fa"
	earlyBar = "#2a9d8f"
	forceBar = "#e9a23b"
	tokenBar = "#8fb8de"
	overlap  = "#d1495b"
)

var lineColours = map[string]string{
	sim.Timers: "#009e73", sim.DefaultOnly: "#d55e00", sim.Synchronised: "#cc79a7", sim.Oracle: "#0072b2",
}

// svg collects the elements of a drawing.
type svg struct{ bytes.Buffer }

func (s *svg) rect(x, y, w, h float64, fill, more string) {
	fmt.Fprintf(s, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="%s" %s/>`+"\n", x, y, w, h, fill, more)
}

func (s *svg) text(x, y float64, size int, anchor, fill, weight, text string) {
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" fill="%s" font-weight="%s">%s</text>`+"\n", x, y, size, anchor, fill, weight, text)
}

func (s *svg) line(x1, y1, x2, y2 float64, stroke, more string) {
	fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" %s/>`+"\n", x1, y1, x2, y2, stroke, more)
}

// plot draws who collects when, one panel for each mechanism, and below them the latency curves.
func plot(reports []sim.Report) []byte {
	window := plotWindow(reports)
	panel := float64(reports[0].Spec.Devices*(rowHeight+rowGap) + panelGap)
	high := 78 + panel*float64(len(reports)) + 30 + curvesHigh + 80
	s := &svg{}
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" height="%.0f" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">`+"\n", plotWidth, high, plotWidth, high)
	s.rect(0, 0, plotWidth, high, "#ffffff", `rx="8"`)
	r := reports[0]
	s.text(24, 32, 19, "start", ink, "bold", "Who collects garbage when")
	s.text(24, 53, 12, "start", faint, "normal", fmt.Sprintf("%d devices, utilisation %.2f, %s, %.0f requests/s; simulated, the same load for each; the last %s",
		r.Spec.Devices, r.Spec.Utilisation, copies(r.Spec.Copies), r.Rate, seconds(window)))
	legend(s)
	y := 84.0
	for _, r := range reports {
		timeline(s, r, y, window)
		y += panel
	}
	timeAxis(s, y-14, window)
	curves(s, reports, y+38)
	s.WriteString("</svg>\n")
	return s.Bytes()
}

func caption(mechanism string) string {
	if mechanism == sim.Timers {
		return "timers (lsad)"
	}
	return mechanism
}

func copies(n int) string {
	if n == 2 {
		return "two copies"
	}
	return "one copy"
}

func seconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0f ms", s*1000)
	}
	return fmt.Sprintf("%.1f s", s)
}

// plotWindow is the time shown: a few turns of every device.
func plotWindow(reports []sim.Report) float64 {
	w := math.Inf(1)
	for _, r := range reports {
		w = math.Min(w, r.Seconds)
		if r.Mechanism == sim.Timers {
			w = math.Min(w, 3.5*r.Period)
		}
	}
	return w
}

func legend(s *svg) {
	x := 560.0
	for _, l := range []struct{ colour, text string }{{earlyBar, "early"}, {forceBar, "forced"}, {tokenBar, "token"}, {overlap, "two or more at once"}} {
		s.rect(x, 23, 12, 10, l.colour, `rx="2"`)
		s.text(x+17, 32, 12, "start", ink, "normal", l.text)
		x += 32 + 7.5*float64(len(l.text)) + 14
	}
}

// timeline draws a panel: a lane for each device, a bar for each collection, and a mark above them wherever
// two or more collect.
func timeline(s *svg, r sim.Report, y, window float64) {
	wide := float64(plotWidth - leftMargin - 30)
	x := func(t float64) float64 { return leftMargin + wide*math.Min(1, math.Max(0, t/window)) }
	skip := 0.0
	for _, i := range r.Timeline {
		skip = math.Max(skip, i.To)
	}
	skip -= window
	high := float64(r.Spec.Devices * (rowHeight + rowGap))
	s.text(24, y+12, 14, "start", lineColours[r.Mechanism], "bold", caption(r.Mechanism))
	s.text(24, y+30, 11, "start", ink, "normal", percent(r.Overlap)+" of the")
	s.text(24, y+44, 11, "start", ink, "normal", "time 2 or more")
	s.text(24, y+60, 11, "start", faint, "normal", fmt.Sprintf("WA %.2f", r.Amplification))
	for d := range r.Spec.Devices {
		s.rect(leftMargin, y+float64(d*(rowHeight+rowGap)), wide, rowHeight, lane, `rx="2"`)
	}
	for _, o := range overlaps(r.Timeline) {
		if a, b := x(o[0]-skip), x(o[1]-skip); b > a {
			s.rect(a, y-5, math.Max(b-a, .6), high+4, overlap, `opacity="0.28"`)
			s.rect(a, y-7, math.Max(b-a, .6), 4, overlap, "")
		}
	}
	for _, i := range r.Timeline {
		colour := earlyBar
		if i.Reason != "early" {
			colour = forceBar
		}
		if r.Mechanism == sim.Oracle {
			colour = tokenBar
		}
		if a, b := x(i.From-skip), x(i.To-skip); b > a {
			s.rect(a, y+float64(i.Device*(rowHeight+rowGap)), math.Max(b-a, .8), rowHeight, colour, `rx="1.5"`)
		}
	}
}

// overlaps are the stretches of time in which two or more collections run. Collections are in the order of
// their ends.
func overlaps(all []sim.Interval) (out [][2]float64) {
	for i, a := range all {
		for _, b := range all[i+1:] {
			if from, to := math.Max(a.From, b.From), math.Min(a.To, b.To); to > from {
				out = append(out, [2]float64{from, to})
			}
		}
	}
	return out
}

func timeAxis(s *svg, y, window float64) {
	wide := float64(plotWidth - leftMargin - 30)
	for i := range 5 {
		x := leftMargin + wide*float64(i)/4
		anchor := "middle"
		if i == 4 {
			anchor = "end"
		}
		s.text(x, y, 11, anchor, faint, "normal", seconds(window*float64(i)/4))
	}
}

// curves draws the latency of reads, or of writes where nothing reads, over the quantile.
func curves(s *svg, reports []sim.Report, top float64) {
	what, pick := "Read", func(r sim.Report) sim.Latency { return r.Reads }
	if reports[0].Reads.Count == 0 {
		what, pick = "Write", func(r sim.Report) sim.Latency { return r.Writes }
	}
	low, high := math.Inf(1), 0.0
	points := 0
	for _, r := range reports {
		l := pick(r)
		for i, v := range l.Curve {
			if math.Pow(10, float64(i)/8)*20 > float64(l.Count) { // fewer than twenty samples beyond
				break
			}
			low, high, points = math.Min(low, math.Max(v, 1)), math.Max(high, v), max(points, i+1)
		}
	}
	if points < 2 {
		return
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low)*4)/4), math.Pow(10, math.Ceil(math.Log10(high*1.02)*4)/4)
	wide := float64(plotWidth - leftMargin - 30)
	x := func(i int) float64 { return leftMargin + wide*float64(i)/float64(points-1) }
	y := func(v float64) float64 {
		return top + 24 + curvesHigh*(1-math.Log(math.Max(v, low)/low)/math.Log(high/low))
	}
	s.text(24, top, 19, "start", ink, "bold", what+" latency")
	s.text(24, top+40, 12, "start", faint, "normal", "microseconds")
	for _, v := range ticks(low, high) {
		s.line(leftMargin, y(v), leftMargin+wide, y(v), grid, `stroke-width="1"`)
		s.text(leftMargin-8, y(v)+4, 11, "end", faint, "normal", fmt.Sprintf("%.0f", v))
	}
	for i, name := range []string{"0", "p90", "p99", "p99.9", "p99.99", "p99.999"} {
		if i*8 < points {
			s.line(x(i*8), top+24, x(i*8), top+24+curvesHigh, grid, `stroke-width="1"`)
			s.text(x(i*8), top+24+curvesHigh+18, 11, "middle", faint, "normal", name)
		}
	}
	for n, r := range reports {
		path := ""
		for i, v := range pick(r).Curve[:points] {
			path += fmt.Sprintf("%c%.1f %.1f", "ML"[min(i, 1)], x(i), y(v))
		}
		fmt.Fprintf(s, `<path d="%s" fill="none" stroke="%s" stroke-width="2.4" stroke-linejoin="round"%s/>`+"\n", path, lineColours[r.Mechanism], dash(r.Mechanism))
		ly := top + 44 + float64(n)*19
		fmt.Fprintf(s, `<path d="M%d %.1fh26" fill="none" stroke="%s" stroke-width="2.4"%s/>`+"\n", leftMargin+18, ly-4, lineColours[r.Mechanism], dash(r.Mechanism))
		s.text(leftMargin+52, ly, 12, "start", ink, "normal", fmt.Sprintf("%s: p99.9 %.0f, p99.99 %.0f", caption(r.Mechanism), pick(r).P999, pick(r).P9999))
	}
}

// dash lets the yardstick be seen where it lies over lsad's curve.
func dash(mechanism string) string {
	if mechanism == sim.Oracle {
		return ` stroke-dasharray="6 4"`
	}
	return ""
}

// ticks are round numbers from low to high, 1, 2 and 5 times powers of ten.
func ticks(low, high float64) (out []float64) {
	for p := math.Pow(10, math.Floor(math.Log10(low))); p <= high; p *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := p * m; v >= low*.999 && v <= high*1.001 {
				out = append(out, v)
			}
		}
	}
	return out
}
