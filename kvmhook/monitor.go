package kvmhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxStatus bounds the JSON of a status, in bytes.
const maxStatus = 1 << 20

// Handler serves GET /v1/status, a Status as JSON, and GET /metrics, for Prometheus.
func Handler(status func() Status) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), exporter{status})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(status()) // an error means that the client has gone
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return mux
}

// Monitor serves Handler on l until ctx ends.
func Monitor(ctx context.Context, l net.Listener, status func() Status) error {
	srv := &http.Server{Handler: Handler(status), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("status socket: %w", err)
	}
	return nil
}

// ReadStatus asks the hook whose status socket is at path.
func ReadStatus(ctx context.Context, path string) (Status, error) {
	var st Status
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hook/v1/status", nil)
	if err != nil {
		return st, err
	}
	resp, err := client.Do(req)
	var u *url.Error // its address means nothing here
	if errors.As(err, &u) {
		err = u.Err
	}
	if err != nil {
		return st, fmt.Errorf("hook at %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("hook at %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&st); err != nil {
		return st, fmt.Errorf("hook at %s: unreadable answer: %w", path, err)
	}
	return st, nil
}

// exporter makes metrics of a status when it is asked.
type exporter struct{ status func() Status }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lsad_hook_"+name, help, labels, nil)
}

var (
	descFaults   = desc("faults_total", "Page faults read from the kernel.")
	descAnswered = desc("faults_answered_total", "Page faults by how they were answered: zeros, fetched, waited for content under way, with a page that was held back, spurious, or lost.", "how")
	descInstall  = desc("installed_bytes_total", "Content put into the guest: demanded by a fault, around such a page, or by the background fill.", "why")
	descRead     = desc("source_read_bytes_total", "Bytes read from the source, holes within a read included.")
	descDropped  = desc("source_dropped_bytes_total", "Bytes read that were removed before they could be installed.")
	descSpared   = desc("not_transferred_bytes", "Bytes that never have to be read: holes, and what was removed first.")
	descRemoved  = desc("removed_bytes_total", "Bytes that the VMM removed.")
	descPoisoned = desc("poisoned_bytes_total", "Bytes whose content is lost.")
	descRetries  = desc("retries_total", "Installations that the kernel put off.")
	descContent  = desc("content_bytes", "Bytes of content that the guest's mappings have.")
	descResident = desc("resident_bytes", "Bytes of the content that are there or were removed.")
	descServing  = desc("serving", "1 while a VMM is served.")
	descLatency  = desc("fault_latency_seconds", "Time from reading a fault to its page being there.")
	descOutage   = desc("source_outage_seconds", "How long the source has been out of reach.")
	descDirect   = desc("source_direct_bytes_total", "Bytes read from the devices of the server on this machine, past it.")
	descHeld     = desc("held_pages", "Prefetched pages that are held back now, to see whether they are used.")
	descSampled  = desc("sampled_pages_total", "Prefetched pages that were to be held back, by what became of them: used, dropped (removed) or released unused.", "how")
	descShare    = desc("prefetched_used_share", "Estimate, from pages held back at random: share of the prefetch that was used so far. low and high bound it with a confidence of 95 %.", "bound")
	descUsed     = desc("prefetched_used_bytes", "Estimate, from pages held back at random: bytes that were prefetched and used so far.")
	descWasted   = desc("prefetched_wasted_bytes", "Estimate, from pages held back at random: bytes that were prefetched and not used so far.")
	descReconn   = desc("source_reconnects_total", "Connections to the source that were made anew.")
)

// Describe says nothing, which makes this an unchecked collector.
func (exporter) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e exporter) Collect(ch chan<- prometheus.Metric) {
	st := e.status()
	send := func(kind prometheus.ValueType) func(d *prometheus.Desc, v float64, labels ...string) {
		return func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
		}
	}
	counter, gauge := send(prometheus.CounterValue), send(prometheus.GaugeValue)
	counter(descFaults, float64(st.Faults))
	counter(descAnswered, float64(st.ZeroFaults), "zeros")
	counter(descAnswered, float64(st.FetchedFaults), "fetched")
	counter(descAnswered, float64(st.WaitedFaults), "waited")
	counter(descAnswered, float64(st.HeldFaults), "held")
	counter(descAnswered, float64(st.SpuriousFaults), "spurious")
	counter(descAnswered, float64(st.LostFaults), "lost")
	counter(descInstall, float64(st.DemandedBytes), "demanded")
	counter(descInstall, float64(st.AroundBytes), "around")
	counter(descInstall, float64(st.FilledBytes), "filled")
	counter(descRead, float64(st.ReadBytes))
	counter(descDropped, float64(st.DroppedBytes))
	gauge(descSpared, float64(st.NotTransferredBytes))
	counter(descRemoved, float64(st.RemovedBytes))
	counter(descPoisoned, float64(st.PoisonedBytes))
	counter(descRetries, float64(st.Retries))
	gauge(descContent, float64(st.ContentBytes))
	gauge(descResident, float64(st.ResidentBytes))
	p := st.Prefetch
	gauge(descHeld, float64(p.HeldPages))
	counter(descSampled, float64(p.UsedPages), "used")
	counter(descSampled, float64(p.DroppedPages), "dropped")
	counter(descSampled, float64(p.ReleasedPages), "released")
	share, low, high, used, wasted := math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN() // nothing is known yet
	if e := p.Estimate; e != nil {
		share, low, high, used, wasted = e.UsedShare, e.Low, e.High, float64(e.UsedBytes), float64(e.WastedBytes)
	}
	gauge(descShare, share, "estimate")
	gauge(descShare, low, "low")
	gauge(descShare, high, "high")
	gauge(descUsed, used)
	gauge(descWasted, wasted)
	serving := 0.0
	if st.State == StateServing || st.State == StateFilled {
		serving = 1
	}
	gauge(descServing, serving)
	gauge(descOutage, st.Source.OutageSeconds)
	counter(descDirect, float64(st.Source.DirectBytes))
	counter(descReconn, float64(st.Source.Reconnects))
	buckets := make(map[float64]uint64, latencyBuckets)
	sum := uint64(0)
	for i, n := range st.Latency.Counts {
		sum += uint64(n)
		buckets[float64(int64(1)<<i)/1e6] = sum
	}
	ch <- prometheus.MustNewConstHistogram(descLatency, uint64(st.Latency.Count), float64(st.Latency.SumUs)/1e6, buckets)
}
