package wire

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyEvery is the number of batches of which one is timed. At this rate, two readings of
// the clock cost less than a nanosecond per whole packet.
const latencyEvery = 64

// LatencyBuckets is the number of buckets of a [Latency]. Bucket i counts durations below
// [LatencyBound](i); the last one counts all longer ones.
const LatencyBuckets = 22

// LatencyBound returns the upper bound of bucket i, except for the last: 1 µs for the first,
// and twice the previous bound for each following one, up to 1 s.
func LatencyBound(i int) time.Duration { return time.Microsecond << i }

// Latency counts, by duration, how long batches took from the ingress port to the egress port.
// A reassembled datagram is timed from the fragment that completed it. Any number of goroutines
// may use it.
type Latency struct {
	buckets [LatencyBuckets]atomic.Uint64
	sum     atomic.Int64 // ns
}

// LatencySnapshot is the state of a [Latency] at one moment.
type LatencySnapshot struct {
	Buckets [LatencyBuckets]uint64 // by bucket
	Sum     time.Duration
}

func (l *Latency) observe(d time.Duration) {
	i := bits.Len64(uint64(max(d, 0)) / uint64(time.Microsecond))
	l.buckets[min(i, LatencyBuckets-1)].Add(1)
	l.sum.Add(int64(d))
}

// restore adds the counts of another process.
func (l *Latency) restore(buckets []uint64, sum time.Duration) {
	for i, n := range buckets {
		l.buckets[i].Add(n)
	}
	l.sum.Add(int64(sum))
}

// Snapshot returns the counts.
func (l *Latency) Snapshot() LatencySnapshot {
	var s LatencySnapshot
	for i := range l.buckets {
		s.Buckets[i] = l.buckets[i].Load()
	}
	s.Sum = time.Duration(l.sum.Load())
	return s
}

// Count returns the number of batches that were timed.
func (s *LatencySnapshot) Count() uint64 {
	n := uint64(0)
	for _, b := range s.Buckets {
		n += b
	}
	return n
}

// Quantile returns an upper bound on the duration of the given share of the batches, from 0 to
// 1. It is as exact as the buckets are. It is 0 if no batch was timed.
func (s *LatencySnapshot) Quantile(share float64) time.Duration {
	want := share * float64(s.Count())
	n := 0.0
	for i, b := range s.Buckets {
		if n += float64(b); b > 0 && n >= want {
			return LatencyBound(i)
		}
	}
	return 0
}
