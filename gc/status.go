package gc

import "time"

// Totals count since the device was added.
type Totals struct {
	Early    uint64        `json:"early"`    // collections by the timer
	Forced   uint64        `json:"forced"`   // by the default threshold
	Manual   uint64        `json:"manual"`   // by an operator
	Segments uint64        `json:"segments"` // segments collected
	Moved    uint64        `json:"moved"`    // blocks relocated
	Errors   uint64        `json:"errors"`   // segments that could not be collected
	Time     time.Duration `json:"time_ns"`  // spent collecting, finished collections only
}

func (t *Totals) count(why Reason) {
	switch why {
	case Early:
		t.Early++
	case Forced:
		t.Forced++
	case Manual:
		t.Manual++
	}
}

// Run is one finished collection.
type Run struct {
	Reason   Reason        `json:"reason"`
	Began    time.Time     `json:"began"`
	Took     time.Duration `json:"took_ns"`
	Segments int           `json:"segments"`
	Moved    int           `json:"moved"` // blocks
}

// Status is a snapshot of one device for lsad gc status and metrics.
type Status struct {
	Device    string        `json:"device"`
	Mode      Mode          `json:"mode"`
	Policy    string        `json:"policy"`
	Unused    int           `json:"unused"`
	Pending   int           `json:"pending"` // empty, waiting for a checkpoint
	Total     int           `json:"total"`
	Limits    Limits        `json:"limits"`
	Period    time.Duration `json:"period_ns"`
	Phase     float64       `json:"phase"`
	TimeLeft  time.Duration `json:"time_left_ns"` // until its turn; 0 without a timer
	State     Reason        `json:"state"`        // why it is collecting, none if it is not
	Share     float64       `json:"share"`        // of the device's time that the collection takes
	Fill      float64       `json:"fill"`         // segments per second, slow average
	Totals    Totals        `json:"totals"`
	Recent    []Run         `json:"recent"` // the last few collections, newest last
	LastError string        `json:"last_error,omitempty"`
}

// Status is a snapshot.
func (d *Device) Status(now time.Time) Status {
	c := d.target.Count()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		Device: d.target.Name(), Mode: d.mode, Policy: d.policy.Name(),
		Unused: c.Unused, Pending: c.Pending, Total: c.Total,
		Limits: d.limits, Phase: d.offset, State: d.reason,
		Fill: d.fill.slow.rate(), Totals: d.totals,
		Recent: append([]Run(nil), d.recent...), LastError: d.lastError,
	}
	if d.mode == Timed {
		s.Period = d.sched.period
		s.TimeLeft = max(0, d.sched.when(d.due).Sub(now))
	}
	if d.reason != None {
		s.Share = d.share
	}
	return s
}
