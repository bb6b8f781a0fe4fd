package main

import (
	"errors"
	"testing"
)

const fioText = `fio: connected to NBD server
{
  "fio version" : "fio-3.33",
  "jobs" : [
    {
      "jobname" : "bench",
      "error" : 0,
      "job_runtime" : 5000, "usr_cpu" : 12.5, "sys_cpu" : 37.5,
      "read" : {
        "bw_bytes" : 40960000, "iops" : 10000.5, "total_ios" : 50000,
        "clat_ns" : { "min" : 5000, "mean" : 12500.25, "percentile" : { "99.000000" : 51000 } }
      },
      "write" : { "bw_bytes" : 4096, "iops" : 1.0, "total_ios" : 5, "clat_ns" : { "mean" : 1000 } }
    }
  ]
}
`

func TestParseFio(t *testing.T) {
	read, err := parseFio([]byte(fioText), false)
	if err != nil {
		t.Fatal(err)
	}
	want := fioResult{IOPS: 10000.5, BytesPerSecond: 40960000, MeanLatency: 12.50025, P99Latency: 51, IOs: 50000, ClientCPU: 50}
	if read != want {
		t.Errorf("read: got %+v, want %+v", read, want)
	}
	write, err := parseFio([]byte(fioText), true)
	if err != nil {
		t.Fatal(err)
	}
	want = fioResult{IOPS: 1, BytesPerSecond: 4096, MeanLatency: 1, IOs: 5, ClientCPU: 500000}
	if write != want {
		t.Errorf("write: got %+v, want %+v", write, want)
	}
}

func TestParseFioRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":      "",
		"no JSON":      "fio: nbd_connect_uri: Connection refused\n",
		"cut short":    fioText[:len(fioText)/2],
		"no job":       `{"jobs":[]}`,
		"two jobs":     `{"jobs":[{},{}]}`,
		"a failed job": `{"jobs":[{"error":5}]}`,
	} {
		if r, err := parseFio([]byte(text), false); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
	if _, err := parseFio([]byte("fio: hello"), false); !errors.Is(err, errNoJSON) {
		t.Errorf("got %v, want errNoJSON", err)
	}
}
