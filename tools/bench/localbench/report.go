package localbench

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// Result is the median of one row on one disk.
type Result struct {
	Row    string  `json:"row"`
	Disk   string  `json:"disk"`
	Median float64 `json:"median"` // requests a second, or ms
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

func medians(values map[[2]string][]float64, s settings) []Result {
	var out []Result
	for _, name := range rowNames() {
		for _, d := range disks(s.queues) {
			all := values[[2]string{name, d.name}]
			if len(all) > 0 {
				slices.Sort(all)
				out = append(out, Result{name, d.name, all[len(all)/2], all[0], all[len(all)-1]})
			}
		}
	}
	return out
}

// report prints medians, their ranges, and ratios.
func report(w io.Writer, all []Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ROW\tNULL_BLK\tUBLK\tNBD\tUBLK/NBD\tUBLK/NULL_BLK")
	for _, name := range rowNames() {
		at := func(disk string) Result {
			i := slices.IndexFunc(all, func(r Result) bool { return r.Row == name && r.Disk == disk })
			if i < 0 {
				return Result{}
			}
			return all[i]
		}
		null, ublk, nbd := at("null_blk"), at("ublk"), at("nbd")
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", name, text(null), text(ublk), text(nbd), ratio(ublk, nbd), ratio(ublk, null))
	}
	return tw.Flush()
}

func text(r Result) string {
	if r.Disk == "" {
		return "-"
	}
	return fmt.Sprintf("%.0f (%.0f..%.0f)", r.Median, r.Least, r.Most)
}

func ratio(a, b Result) string {
	if a.Disk == "" || b.Median == 0 {
		return "-"
	}
	return strconv.FormatFloat(a.Median/b.Median, 'f', 2, 64)
}
