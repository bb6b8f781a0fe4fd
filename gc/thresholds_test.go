package gc

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

func TestAmountText(t *testing.T) {
	for _, c := range []struct {
		text  string
		of    int // on a device of 1000 segments
		again string
	}{
		{"12", 12, "12"}, {" 3 ", 3, "3"}, {"1%", 10, "1%"}, {"1.25 %", 13, "1.25%"}, {"0.01%", 1, "0.01%"}, {"100%", 1000, "100%"}, {"", 0, ""},
	} {
		var a Amount
		if err := a.UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%q: %v", c.text, err)
		}
		if a.Of(1000) != c.of || a.String() != c.again {
			t.Errorf("%q: %d segments, text %q; want %d, %q", c.text, a.Of(1000), a, c.of, c.again)
		}
	}
	for _, bad := range []string{"0", "-1", "1.5", "0%", "101%", "-3%", "NaN%", "many", "%", "1e9999%", "0.0000001%"} {
		var a Amount
		if err := a.UnmarshalText([]byte(bad)); !errors.Is(err, ErrAmount) {
			t.Errorf("%q was taken as %v, error %v", bad, a, err)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		name  string
		t     Thresholds
		total int
		want  Limits
		err   error
	}{
		{"defaults", Thresholds{}, 1024, Limits{8, 11, 17, 19}, nil},
		{"defaults, small", Thresholds{}, 64, Limits{4, 5, 8, 9}, nil},
		{"defaults, large", Thresholds{}, 100_000, Limits{750, 1000, 1550, 1750}, nil},
		{"low alone moves all", Thresholds{Low: Count(20)}, 1024, Limits{20, 23, 29, 31}, nil},
		{"shares", Thresholds{Share(.01), Share(.02), Share(.03), Share(.05)}, 1000, Limits{10, 20, 30, 50}, nil},
		{"alternative low alone", Thresholds{AltLow: Count(40)}, 1024, Limits{8, 11, 40, 42}, nil},
		{"high equal to low", Thresholds{Low: Count(8), High: Count(8)}, 1024, Limits{}, ErrHighNotAboveLow},
		{"high below low", Thresholds{Low: Count(8), High: Count(7)}, 1024, Limits{}, ErrHighNotAboveLow},
		{"alternative low at default low", Thresholds{Low: Count(8), AltLow: Count(8)}, 1024, Limits{}, ErrAltNotAboveDefault},
		{"alternative low below default low", Thresholds{Low: Count(8), AltLow: Count(3)}, 1024, Limits{}, ErrAltNotAboveDefault},
		{"alternative high at default high", Thresholds{Count(4), Count(14), Count(10), Count(14)}, 1024, Limits{}, ErrAltNotAboveDefault},
		{"alternative high at alternative low", Thresholds{Count(4), Count(6), Count(10), Count(10)}, 1024, Limits{}, ErrHighNotAboveLow},
		{"negative", Thresholds{Low: Count(-1)}, 1024, Limits{}, ErrLow},
		{"more than there are", Thresholds{AltHigh: Count(64)}, 64, Limits{}, ErrTooHigh},
		{"defaults, tiny", Thresholds{}, 8, Limits{2, 3, 4, 5}, nil},
		{"a device too small", Thresholds{}, 5, Limits{}, ErrTooHigh},
	} {
		got, err := c.t.Resolve(c.total)
		if !errors.Is(err, c.err) || c.err == nil && (err != nil || got != c.want) {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, err, c.want, c.err)
		}
	}
}

func TestDefaultLimitsAreValid(t *testing.T) {
	for total := 8; total < 2_000_000; total += 1 + total/7 {
		if l, err := (Thresholds{}).Resolve(total); err != nil || l != DefaultLimits(total) {
			t.Fatalf("%d segments: %+v, %v", total, l, err)
		}
	}
}

const sample = `
mode = "timed"
period = "2s"
policy = "greedy"
[thresholds]
low = 12
high = "2%"
[devices.d1]
period = "auto"
phase = 0.25
[devices.d1.thresholds]
alt-low = "3%"
`

func TestConfigTOMLAndJSON(t *testing.T) {
	var c Config
	if _, err := toml.Decode(sample, &c); err != nil {
		t.Fatal(err)
	}
	if c.Period != Period(2*time.Second) || c.Thresholds.Low != Count(12) || c.Thresholds.High != Share(.02) ||
		*c.Devices["d1"].Phase != .25 || c.Devices["d1"].Thresholds.AltLow != Share(.03) {
		t.Fatalf("%+v", c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(back)
	if string(again) != string(data) {
		t.Fatalf("%s became %s", data, again)
	}
	if err := json.Unmarshal([]byte(`{"thresholds":{"low":7}}`), &back); err != nil || back.Thresholds.Low != Count(7) {
		t.Fatalf("a plain number: %+v, %v", back, err)
	}
}

func TestConfigRefuses(t *testing.T) {
	bad := func(f float64) Config { return Config{Devices: map[string]DeviceConfig{"d": {Phase: &f}}} }
	for _, c := range []struct {
		name string
		cfg  Config
		err  error
	}{
		{"mode", Config{Mode: "sometimes"}, ErrUnknown},
		{"policy", Config{Policy: "random"}, ErrUnknown},
		{"placement", Config{Placement: "anywhere"}, ErrUnknown},
		{"period", Config{Period: -1}, ErrPeriod},
		{"period that a timer cannot keep", Config{Period: 1}, ErrPeriod},
		{"period of a device", Config{Devices: map[string]DeviceConfig{"d": {Period: -1}}}, ErrPeriod},
		{"phase", bad(1), ErrPhase},
		{"negative phase", bad(-.1), ErrPhase},
	} {
		if err := c.cfg.Validate(); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
	}
	for _, text := range []string{"0s", "0", "-1s", "1ns", "9999999999h", "soon"} {
		var p Period
		if err := p.UnmarshalText([]byte(text)); !errors.Is(err, ErrPeriod) {
			t.Errorf("period %q: %v", text, err)
		}
	}
}

// TestDefaultsFitAnySize: every device that an array accepts has thresholds without anybody setting them.
func TestDefaultsFitAnySize(t *testing.T) {
	for total := 8; total < 1<<20; total += 1 + total/8 {
		if _, err := (Thresholds{}).Resolve(total); err != nil {
			t.Errorf("device of %d segments: %v", total, err)
		}
	}
}
