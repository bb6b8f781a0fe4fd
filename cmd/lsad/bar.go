package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"lsad/server/admin"
)

// bar shows the progress of a job on a terminal, and nothing elsewhere.
type bar struct {
	w     io.Writer // nil: not a terminal
	step  string
	began time.Time // of the step
	shown bool
}

func newBar(w io.Writer) *bar {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		return &bar{w: w}
	}
	return &bar{}
}

// barWidth in characters.
const barWidth = 30

func (b *bar) show(p admin.JobProgress) {
	if b.w == nil {
		return
	}
	if p.Step != b.step {
		b.step, b.began = p.Step, time.Now()
	}
	b.shown = true
	fmt.Fprintf(b.w, "\r\033[K%s", barText(p, time.Since(b.began))) // errors of a terminal are nobody's
}

// barText is the line of a step that has taken so long.
func barText(p admin.JobProgress, took time.Duration) string {
	if p.TotalBytes <= 0 {
		return p.Step + " ..."
	}
	done := min(1, float64(p.DoneBytes)/float64(p.TotalBytes))
	filled := int(done * barWidth)
	text := fmt.Sprintf("%s [%s%s] %3.0f%%", p.Step, strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), 100*done)
	if s := took.Seconds(); s > 0.5 {
		text += fmt.Sprintf(" %s/s", size(int64(float64(p.DoneBytes)/s)))
	}
	return text
}

// end clears the line.
func (b *bar) end() {
	if b.shown {
		fmt.Fprint(b.w, "\r\033[K")
	}
}
