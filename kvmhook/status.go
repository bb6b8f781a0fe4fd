package kvmhook

import "time"

// State is what a hook is doing.
type State string

// States.
const (
	StateOpening State = "opening" // the source, before there is a hook
	StateWaiting State = "waiting" // for a VMM
	StateServing State = "serving"
	StateFilled  State = "filled" // serving, with all content resident or held back
	StateEnded   State = "ended"
)

// Status is how a hook is. Everything that is counted is counted since its VMM came, in bytes unless it says faults.
type Status struct {
	State State `json:"state"`
	// Kept: another hook can go on if this one is killed.
	Kept          bool    `json:"kept"`
	ServedSeconds float64 `json:"served_seconds"`
	ImageBytes    int64   `json:"image_bytes"`
	MappedBytes   int64   `json:"mapped_bytes"`
	ContentBytes  int64   `json:"content_bytes"` // mapped and not holes
	// ResidentBytes of the content is there, or was removed and never will be.
	ResidentBytes   int64   `json:"resident_bytes"`
	ResidentPercent float64 `json:"resident_percent"`

	Faults         int64 `json:"faults"`
	ZeroFaults     int64 `json:"zero_faults"`     // answered with zeros: holes and removed pages
	FetchedFaults  int64 `json:"fetched_faults"`  // for which content was asked
	WaitedFaults   int64 `json:"waited_faults"`   // on pages that were on their way already
	HeldFaults     int64 `json:"held_faults"`     // on pages that were held back, to see whether they are used
	SpuriousFaults int64 `json:"spurious_faults"` // on pages that had come meanwhile
	LostFaults     int64 `json:"lost_faults"`     // answered with a memory error

	DemandedBytes int64 `json:"demanded_bytes"` // installed because a fault asked for them
	AroundBytes   int64 `json:"around_bytes"`   // installed as neighbours of those
	FilledBytes   int64 `json:"filled_bytes"`   // installed by the background fill
	ReadBytes     int64 `json:"read_bytes"`     // read from the source, holes within a read included
	DroppedBytes  int64 `json:"dropped_bytes"`  // read, and removed before they were installed
	RemovedBytes  int64 `json:"removed_bytes"`  // removed by the VMM
	PoisonedBytes int64 `json:"poisoned_bytes"`
	// NotTransferredBytes are the holes, and the content that was removed before anybody asked for it.
	NotTransferredBytes int64 `json:"not_transferred_bytes"`
	// Retries is how often the kernel put an installation off because the memory was changing.
	Retries int64 `json:"retries"`

	// Prefetch is how much use there is in what is installed around faults and by the fill.
	Prefetch Prefetch     `json:"prefetch"`
	Source   SourceStatus `json:"source"`
	// Latency of faults, from when they were read to when their page was there.
	Latency Latency `json:"latency"`
}

// SourceStatus is how the source is.
type SourceStatus struct {
	Name          string  `json:"name"`
	OutageSeconds float64 `json:"outage_seconds"` // so far; 0 while it answers
	Reconnects    int64   `json:"reconnects"`
	// DirectBytes were read from the devices of a server on this machine, past it.
	DirectBytes int64 `json:"direct_bytes"`
}

// Status of the hook.
func (h *Hook) Status() Status {
	h.mu.Lock()
	s := h.session
	h.mu.Unlock()
	st := Status{State: StateWaiting, ImageBytes: h.o.Source.Size(), Latency: h.stats.latencies()}
	if h.o.SourceStatus != nil {
		st.Source = h.o.SourceStatus()
	}
	if s == nil {
		return st
	}
	st.State, st.Kept, st.ServedSeconds = s.state(), s.kept != nil, time.Since(s.began).Seconds()
	st.MappedBytes, st.ContentBytes = s.total, s.data
	c := &h.stats
	for to, from := range map[*int64]*counter{
		&st.Faults: &c.faults, &st.ZeroFaults: &c.zero, &st.FetchedFaults: &c.fetched, &st.WaitedFaults: &c.underWay, &st.HeldFaults: &c.heldFaults,
		&st.SpuriousFaults: &c.spurious, &st.LostFaults: &c.lost, &st.DemandedBytes: &c.demandPage, &st.AroundBytes: &c.around,
		&st.FilledBytes: &c.filled, &st.ReadBytes: &c.read, &st.DroppedBytes: &c.dropped, &st.RemovedBytes: &c.removals,
		&st.PoisonedBytes: &c.poisoned, &st.Retries: &c.retried,
	} {
		*to = from.Load()
	}
	st.Prefetch = c.prefetch()
	spared := c.spared.Load()
	st.NotTransferredBytes = st.MappedBytes - st.ContentBytes + spared
	st.ResidentBytes = min(st.ContentBytes, st.DemandedBytes+st.AroundBytes+st.FilledBytes+spared+st.DroppedBytes+c.present.Load())
	st.ResidentPercent = 100
	if st.ContentBytes > 0 {
		st.ResidentPercent = 100 * float64(st.ResidentBytes) / float64(st.ContentBytes)
	}
	return st
}

func (s *session) state() State {
	switch {
	case s.ended.Load():
		return StateEnded
	case s.filled.Load():
		return StateFilled
	}
	return StateServing
}
