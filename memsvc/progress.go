package memsvc

import (
	"sync"
	"sync/atomic"
	"time"
)

// Progress of a job. Any goroutine may look at it while the job runs. The zero value is ready; nil is nobody looking.
type Progress struct {
	mu    sync.Mutex
	step  string
	began time.Time
	steps []Step

	done, total atomic.Int64
}

// Position is how far a job is.
type Position struct {
	Step        string
	Done, Total int64 // bytes of the step; Total 0 where that is not known
}

// Position returns how far the job is now.
func (p *Progress) Position() Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Position{Step: p.step, Done: p.done.Load(), Total: p.total.Load()}
}

// Begin ends the step before and begins one, of so many bytes.
func (p *Progress) Begin(step string, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.endStep(now)
	p.step, p.began = step, now
	p.done.Store(0)
	p.total.Store(total)
}

// Add says that n more bytes of the step are done.
func (p *Progress) Add(n int64) { p.done.Add(n) }

// Finish ends the last step and returns all with their times.
func (p *Progress) Finish() []Step {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endStep(time.Now())
	p.step = ""
	return p.steps
}

func (p *Progress) endStep(now time.Time) {
	if p.step != "" {
		p.steps = append(p.steps, Step{Name: p.step, Seconds: now.Sub(p.began).Seconds()})
	}
}
