package sim

// Report is the outcome of one simulation.
type Report struct {
	Mechanism     string     `json:"mechanism"`
	Policy        string     `json:"policy"`
	Placement     string     `json:"placement"`
	Spec          Spec       `json:"array"`
	Rate          float64    `json:"rate"` // requests per second
	Seconds       float64    `json:"seconds"`
	Amplification float64    `json:"write_amplification"`
	DutySum       float64    `json:"duty_sum"`   // devices times duty cycle
	Collecting    []float64  `json:"collecting"` // share of time with 0, 1, 2, ... devices collecting
	Overlap       float64    `json:"overlap"`    // share of time with two or more
	Early         uint64     `json:"early"`
	Forced        uint64     `json:"forced"`
	EarlyShare    float64    `json:"early_share"`
	Period        float64    `json:"period_s"`
	Reads         Latency    `json:"reads"`
	Writes        Latency    `json:"writes"`
	Stalls        uint64     `json:"stalled_writes"` // that waited for an unused segment
	Timeline      []Interval `json:"timeline,omitempty"`
}

// Latency in microseconds.
type Latency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p99_9_us"`
	P9999 float64 `json:"p99_99_us"`
	Max   float64 `json:"max_us"`
	// Curve holds latencies at the quantiles 1 - 10^(-i/8), for plots.
	Curve []float64 `json:"curve_us,omitempty"`
}

// Interval is one collection in the timeline, in seconds.
type Interval struct {
	Device int     `json:"device"`
	From   float64 `json:"from"`
	To     float64 `json:"to"`
	Reason string  `json:"reason"`
}
