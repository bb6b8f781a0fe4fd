package admin

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape parses /metrics as Prometheus does, and fails on what it would not take.
func scrape(t *testing.T, cfg Config) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	New(cfg).Handler(Access{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help text", name)
		}
	}
	samples := map[string]string{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			samples[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return samples
}

func TestMetrics(t *testing.T) {
	stats := NewIO([]string{"read", "write"})
	v := stats.Volume("old")
	stats.Volume("old@snap").Record(0, 1, 512, 0, time.Millisecond)
	v.Record(1, 3, 12288, 0, 10*time.Microsecond)
	v.Record(1, 1, 0, 1, time.Hour)
	v.Record(0, 0, 0, 0, 0) // nothing
	v.Record(9, 1, 1, 0, 0) // no such operation
	stats.Rename("old", "vol0")
	stats.Volume("older").Record(0, 1, 1, 0, 0)
	stats.Forget("older")

	f := &fakeArray{volumes: []Volume{{Name: "vol0", SizeBytes: 8192}}}
	got := scrape(t, Config{Array: f, Collector: f, IO: stats})
	for name, want := range map[string]string{
		`lsad_io_requests_total{operation="write",volume="vol0"}`:                         "4",
		`lsad_io_errors_total{operation="write",volume="vol0"}`:                           "1",
		`lsad_io_bytes_total{operation="write",volume="vol0"}`:                            "12288",
		`lsad_io_bytes_total{operation="read",volume="vol0@snap"}`:                        "512",
		`lsad_io_latency_seconds_count{operation="write",volume="vol0"}`:                  "4",
		`lsad_io_latency_seconds_sum{operation="write",volume="vol0"}`:                    "3600.00003",
		`lsad_io_latency_seconds_bucket{operation="write",volume="vol0",le="8.192e-06"}`:  "0",
		`lsad_io_latency_seconds_bucket{operation="write",volume="vol0",le="1.6384e-05"}`: "3",
		`lsad_io_latency_seconds_bucket{operation="write",volume="vol0",le="+Inf"}`:       "4",
		`lsad_log_bytes_total{kind="user"}`:                                               "12345",
		`lsad_device_segments{device="dev0",slot="0",state="unused"}`:                     "4",
		`lsad_device_in_service{device="dev0",slot="0"}`:                                  "1",
		`lsad_volume_size_bytes{volume="vol0"}`:                                           "8192",
		`lsad_map_cache_hits_total`:                                                       "7",
		`lsad_recovery_seconds`:                                                           "0.5",
		`lsad_gc_collections_total{device="dev0",reason="early"}`:                         "3",
		`lsad_gc_moved_bytes_total{device="dev0"}`:                                        "4096",
		`lsad_build_info{version="test"}`:                                                 "1",
		`lsad_nbd_connections`:                                                            "0",
		`lsad_array_healthy`:                                                              "1",
	} {
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, `volume="old`) || strings.Contains(name, `device="removed"`) {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestBuckets(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 8191, 8192, 8193, 16384, 16385, time.Second, 17 * time.Second, time.Hour} {
		i := bucketOf(d)
		s := d.Seconds()
		if i < numBuckets-1 && s > bucketBound(i) {
			t.Errorf("%v is in bucket %d, which ends at %v s", d, i, bucketBound(i))
		}
		if i > 0 && s <= bucketBound(i-1) {
			t.Errorf("%v is in bucket %d, the one before ends at %v s", d, i, bucketBound(i-1))
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	v := NewIO([]string{"read", "write"}).Volume("vol0")
	b.ReportAllocs()
	for b.Loop() {
		v.Record(1, 32, 32*4096, 0, 50*time.Microsecond)
	}
}
