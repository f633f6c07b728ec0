package wire

import (
	"testing"
	"time"
)

func TestLatencyBuckets(t *testing.T) {
	var l Latency
	for _, d := range []time.Duration{-1, 0, time.Microsecond - 1, time.Microsecond, 2*time.Microsecond - 1, 2 * time.Microsecond, time.Hour} {
		l.observe(d)
	}
	s := l.Snapshot()
	if want := (LatencySnapshot{Buckets: [LatencyBuckets]uint64{0: 3, 1: 2, 2: 1, LatencyBuckets - 1: 1}, Sum: s.Sum}); s != want {
		t.Errorf("%v", s)
	}
	if n := s.Count(); n != 7 {
		t.Errorf("%d counted", n)
	}
	for share, want := range map[float64]time.Duration{0.1: time.Microsecond, 0.5: 2 * time.Microsecond, 0.8: 4 * time.Microsecond} {
		if q := s.Quantile(share); q != want {
			t.Errorf("%v: %v, want %v", share, q, want)
		}
	}
	if q := (&LatencySnapshot{}).Quantile(0.5); q != 0 {
		t.Errorf("without measurements: %v", q)
	}
}
