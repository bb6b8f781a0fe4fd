package loglimit

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	var l Limiter
	begin := time.Unix(100, 0)
	for i, tt := range []struct {
		after time.Duration
		more  int64
		ok    bool
	}{{0, 0, true}, {time.Millisecond, 0, false}, {999 * time.Millisecond, 0, false}, {time.Second, 2, true}, {5 * time.Second, 0, true}} {
		if more, ok := l.Allow(begin.Add(tt.after)); more != tt.more || ok != tt.ok {
			t.Errorf("event %d after %v: %d, %v; want %d, %v", i, tt.after, more, ok, tt.more, tt.ok)
		}
	}
}
