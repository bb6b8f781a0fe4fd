package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// row is one line of the comparison: a load, and what is taken from it.
type row struct {
	name    string
	title   string
	write   bool
	flush   bool // needs a server that flushes
	args    []string
	figures []figure
}

// figure is one number of a row.
type figure struct {
	title  string // after the row's
	unit   string
	value  func(fioResult) float64
	target float64 // of lsad's value to nbdkit's
	less   bool    // smaller is better: target is the most, else the least
}

func met(f figure, ratio float64) bool {
	if f.less {
		return ratio <= f.target
	}
	return ratio >= f.target
}

func iops(target float64) []figure {
	return []figure{{"", "IOPS", func(r fioResult) float64 { return r.IOPS }, target, false}}
}

func throughput(target float64) []figure {
	return []figure{{"", "MiB/s", func(r fioResult) float64 { return r.BytesPerSecond / (1 << 20) }, target, false}}
}

func latency(target float64) []figure {
	return []figure{
		{", mean", "us", func(r fioResult) float64 { return r.MeanLatency }, target, true},
		{", 99th percentile", "us", func(r fioResult) float64 { return r.P99Latency }, target, true},
	}
}

// rows of the comparison, in the order in which they are measured: the random writes come before the reads that are
// to find their blocks scattered, the sequential ones before those that are to find them in order. The targets
// are those that the project set itself.
var rows = []row{
	{
		name: "randwrite32", title: "4 KiB random write, depth 32", write: true,
		args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, figures: iops(2.0),
	},
	{
		name: "randread32", title: "4 KiB random read, depth 32",
		args: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, figures: iops(2.5),
	},
	{
		name: "flush16", title: "4 KiB random write, depth 16, a flush after each", write: true, flush: true,
		args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=1"}, figures: iops(1.2),
	},
	{
		name: "readlatency", title: "4 KiB random read, depth 1",
		args: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, figures: latency(1.15),
	},
	{
		name: "writelatency", title: "4 KiB random write, depth 1", write: true,
		args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=1"}, figures: latency(1.15),
	},
	{
		name: "scattered", title: "1 MiB sequential read of what was written at random, depth 4",
		args: []string{"--rw=read", "--bs=1M", "--iodepth=4"}, figures: throughput(1.0),
	},
	{
		name: "seqwrite", title: "1 MiB sequential write, depth 4", write: true,
		args: []string{"--rw=write", "--bs=1M", "--iodepth=4"}, figures: throughput(1.0),
	},
	{
		name: "seqread", title: "1 MiB sequential read, depth 4",
		args: []string{"--rw=read", "--bs=1M", "--iodepth=4"}, figures: throughput(1.0),
	},
}

// fioArgs is the whole of a row's load.
func (r *row) fioArgs(size int64, runtime time.Duration) []string {
	return append([]string{
		"--size=" + strconv.FormatInt(size, 10), "--time_based", fmt.Sprintf("--runtime=%dms", runtime.Milliseconds()),
	}, r.args...)
}

func rowNames() string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return strings.Join(names, ", ")
}

// chooseRows returns the rows named, all if none is.
func chooseRows(names []string) ([]row, error) {
	if len(names) == 0 {
		return rows, nil
	}
	var chosen []row
	for _, name := range names {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no row %q; there are %s", name, rowNames())
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}
