package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// fioResult is what a job did, reads or writes.
type fioResult struct {
	IOPS           float64
	BytesPerSecond float64
	MeanLatency    float64 // from submission to completion, microseconds
	P99Latency     float64 // microseconds
	IOs            int64
	ServerCPU      float64 // processor time of the server for each I/O, microseconds
	ClientCPU      float64 // processor time of fio for each I/O, microseconds
}

// fioReport is the part that we read of fio's JSON output.
type fioReport struct {
	Jobs []struct {
		Error   int     `json:"error"`
		Runtime float64 `json:"job_runtime"` // milliseconds
		User    float64 `json:"usr_cpu"`     // percent of it
		System  float64 `json:"sys_cpu"`
		Read    fioSide `json:"read"`
		Write   fioSide `json:"write"`
	} `json:"jobs"`
}

type fioSide struct {
	IOs    int64   `json:"total_ios"`
	IOPS   float64 `json:"iops"`
	Bytes  float64 `json:"bw_bytes"` // per second
	Finish struct {
		Mean       float64            `json:"mean"` // nanoseconds
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

var errNoJSON = errors.New("fio printed no JSON")

// parseFio reads the output of one fio job. fio prints lines of its own before the JSON.
func parseFio(out []byte, write bool) (fioResult, error) {
	start := bytes.IndexByte(out, '{')
	if start < 0 {
		return fioResult{}, fmt.Errorf("%w: %q", errNoJSON, out)
	}
	var report fioReport
	if err := json.NewDecoder(bytes.NewReader(out[start:])).Decode(&report); err != nil {
		return fioResult{}, fmt.Errorf("output of fio: %w", err)
	}
	if len(report.Jobs) != 1 {
		return fioResult{}, fmt.Errorf("output of fio: %d jobs, want one (or a group)", len(report.Jobs))
	}
	job := report.Jobs[0]
	if job.Error != 0 {
		return fioResult{}, fmt.Errorf("fio: job failed with error %d", job.Error)
	}
	side := job.Read
	if write {
		side = job.Write
	}
	const us = 1e3
	r := fioResult{
		IOPS: side.IOPS, BytesPerSecond: side.Bytes, IOs: side.IOs,
		MeanLatency: side.Finish.Mean / us,
		P99Latency:  side.Finish.Percentile["99.000000"] / us,
	}
	if r.IOs > 0 {
		r.ClientCPU = job.Runtime * 1e3 * (job.User + job.System) / 100 / float64(r.IOs)
	}
	return r, nil
}

// fio runs one job, or some equal ones as a group, against a server.
func fio(ctx context.Context, s *server, write bool, args ...string) (fioResult, error) {
	args = append([]string{
		"--name=bench", "--ioengine=nbd", "--uri=" + s.uri(), "--output-format=json", "--group_reporting",
		"--norandommap", "--random_generator=tausworthe64", "--percentile_list=99", "--thread",
	}, args...)
	before := s.proc.cpuTime()
	out, err := runProgram(ctx, "fio", args...)
	used := s.proc.cpuTime() - before
	if gone := s.proc.exited(); gone != nil {
		return fioResult{}, errors.Join(gone, err)
	}
	if err != nil {
		return fioResult{}, fmt.Errorf("against %s: %w", s.name, err)
	}
	r, err := parseFio(out, write)
	if err != nil {
		return fioResult{}, fmt.Errorf("against %s: %w", s.name, err)
	}
	if r.IOs > 0 {
		r.ServerCPU = float64(used.Nanoseconds()) / 1e3 / float64(r.IOs)
	}
	return r, nil
}

// prefill writes all of a server's export, with the same bytes for every server.
func prefill(ctx context.Context, s *server, size int64) error {
	args := []string{"--rw=write", "--bs=1M", "--iodepth=4", "--size=" + strconv.FormatInt(size, 10),
		"--randseed=1", "--refill_buffers"}
	if s.flushes {
		args = append(args, "--end_fsync=1")
	}
	_, err := fio(ctx, s, true, args...)
	return err
}
