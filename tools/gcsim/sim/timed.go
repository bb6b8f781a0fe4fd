package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"lsad/gc"
)

// never is later than anything that happens.
const never = math.MaxInt64

// timed is a simulation with service times. Times are in ns since epoch.
type timed struct {
	*Array
	cfg    Config
	rnd    *rand.Rand
	queues []queue
	now    int64
	token  int // oracle: who collects, or -1

	counting   bool
	since      int64 // of counting
	lastChange int64
	active     int
	share      []int64 // ns with so many devices collecting
	reads      histogram
	writes     histogram
	stalls     uint64
	timeline   []Interval
	base       gc.Totals
}

// queue is what a device is doing.
type queue struct {
	d         *device
	slow      float64
	busy      int64 // until then it serves what came before
	step      int64 // next look at the collector
	chunk     int64 // next chunk of the collection, never if none
	ckpt      int64 // pending segments become unused
	victim    gc.SegmentInfo
	pos       int
	moved     int
	occupied  time.Duration // by the last chunk
	last      bool          // and that was the end of the victim
	err       error
	active    bool
	began     int64
	forcedWas uint64
}

func (t *timed) time() time.Time { return epoch.Add(time.Duration(t.now)) }

// Run simulates.
func Run(cfg Config) (Report, error) {
	if err := cfg.configure(); err != nil {
		return Report{}, err
	}
	a, err := NewArray(cfg.Spec)
	if err != nil {
		return Report{}, err
	}
	trace := cfg.File
	if trace == nil {
		if cfg.Rate <= 0 {
			return Report{}, fmt.Errorf("a generated trace needs a rate above zero, got %v requests per second", cfg.Rate)
		}
		if trace, err = NewTrace(cfg.Trace, a.spec.Blocks, cfg.Warm+cfg.Requests); err != nil {
			return Report{}, err
		}
	}
	t := &timed{Array: a, cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Trace.Seed, 99)), token: -1}
	if err := t.age(trace); err != nil {
		return Report{}, err
	}
	t.start()
	if err := t.play(trace); err != nil {
		return Report{}, err
	}
	return t.report(), nil
}

// age fills the array and ages it without service times, at the pace of the load.
func (t *timed) age(trace Trace) error {
	gap := time.Microsecond
	if t.cfg.Rate > 0 {
		gap = time.Duration(float64(time.Second) / t.cfg.Rate)
	}
	took, err := t.untimed(&limited{trace, t.cfg.Warm * 3 / 4}, gap, 0)
	t.now = int64(took)
	return err
}

// limited yields the first requests of a trace.
type limited struct {
	Trace
	left int
}

func (l *limited) Next() (Op, bool) {
	if l.left <= 0 {
		return Op{}, false
	}
	l.left--
	return l.Trace.Next()
}

func (t *timed) start() {
	t.share = make([]int64, len(t.devs)+1)
	for i, d := range t.devs {
		slow := 1.0
		if i < len(t.cfg.Speeds) {
			slow = 1 / t.cfg.Speeds[i]
		}
		t.queues = append(t.queues, queue{d: d, slow: slow, busy: t.now, step: t.now, chunk: never, ckpt: never})
	}
	t.onTook = func(d *device) { t.queues[d.index].step = t.now }
	t.onEmptied = func(d *device) {
		if q := &t.queues[d.index]; q.ckpt == never {
			q.ckpt = t.now + int64(t.cfg.Service.Checkpoint)
		}
	}
	t.lastChange = t.now
}

// play runs the requests of the trace at their times, and between them what the devices do.
func (t *timed) play(trace Trace) error {
	arrival := t.now
	warm := t.cfg.Warm - t.cfg.Warm*3/4
	if warm == 0 {
		t.count()
	}
	for n := 0; n < warm+t.cfg.Requests; n++ {
		op, ok := trace.Next()
		if !ok {
			break
		}
		if op.Gap < 0 || t.cfg.Rate > 0 {
			op.Gap = t.rnd.ExpFloat64() / t.cfg.Rate
		}
		arrival += int64(op.Gap * 1e9)
		if err := t.until(arrival); err != nil {
			return err
		}
		t.now = max(t.now, arrival) // later, if writers were stalled
		if err := t.request(op, arrival); err != nil {
			return err
		}
		if n+1 == warm {
			t.count()
		}
	}
	t.changed()
	return nil
}

// request serves one request that arrived at the given time.
func (t *timed) request(op Op, arrival int64) error {
	s := &t.cfg.Service
	done := int64(0)
	for i := range op.Blocks {
		block := op.Block + i
		if op.Read {
			q := t.source(block)
			if q == nil {
				continue // never written: a hole
			}
			done = max(done, t.serve(q, s.Read)+int64(s.ReadBase))
			continue
		}
		if err := t.room(); err != nil {
			return err
		}
		to, err := t.Write(block)
		if err != nil {
			return err
		}
		for _, dev := range to[:t.spec.Copies] {
			done = max(done, t.serve(&t.queues[dev], s.Write)+int64(s.WriteBase))
		}
	}
	if !t.counting || done == 0 {
		return nil
	}
	if op.Read {
		t.reads.add(done - arrival)
	} else {
		t.writes.add(done - arrival)
	}
	return nil
}

// serve lets a device do something, after what it has to do before, and returns when that is done.
func (t *timed) serve(q *queue, takes time.Duration) int64 {
	q.busy = max(q.busy, t.now) + int64(float64(takes)*q.slow)
	return q.busy
}

// source is the device to read a block from: one that does not collect, if there is a choice.
func (t *timed) source(block uint32) *queue {
	var best *queue
	for c := range t.spec.Copies {
		at := t.maps[c][block]
		if at == mapNowhere {
			return nil
		}
		q := &t.queues[at>>32]
		if best == nil || best.active && !q.active {
			best = q
		}
	}
	return best
}

// room waits until some devices can take a user's write.
func (t *timed) room() error {
	for waited := false; ; waited = true {
		n := 0
		for _, d := range t.devs {
			if !d.tight() {
				n++
			}
		}
		if n >= t.spec.Copies {
			return nil
		}
		if !waited && t.counting {
			t.stalls++
		}
		next := t.next()
		if next == never || next > t.now+int64(time.Hour) {
			return fmt.Errorf("every device is full and none can collect: %w", errFull)
		}
		if err := t.until(next); err != nil {
			return err
		}
	}
}

// next is when the next device has something to do.
func (t *timed) next() int64 {
	next := int64(never)
	for i := range t.queues {
		q := &t.queues[i]
		next = min(next, q.step, q.chunk, q.ckpt)
	}
	return next
}

// until lets the devices do all that they have to do up to a time.
func (t *timed) until(end int64) error {
	for {
		next := t.next()
		if next > end {
			return nil
		}
		t.now = max(t.now, next)
		for i := range t.queues {
			q := &t.queues[i]
			if q.ckpt <= t.now {
				q.d.checkpoint()
				q.ckpt, q.step = never, t.now
			}
			if q.chunk <= t.now {
				if err := t.finish(q); err != nil {
					return err
				}
			}
			if q.step <= t.now {
				t.look(q)
			}
		}
	}
}
