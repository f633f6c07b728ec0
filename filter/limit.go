package filter

import (
	"math"
	"sync/atomic"
	"time"
)

// Clock returns the time since a fixed moment. It never goes backwards.
type Clock func() time.Duration

// Bucket is a token bucket with one second's worth of tokens, at least one. It stores the
// time when it is full again, which one compare-and-swap moves (the generic cell rate
// algorithm, ITU-T I.371 annex A): equivalent to counting tokens, without rounding
// errors. Any number of goroutines may use it.
type Bucket struct {
	full     atomic.Int64 // ns of the clock
	interval int64        // ns between tokens
	depth    int64        // ns in which all tokens but one are refilled
}

// NewBucket returns a full bucket.
func NewBucket(r Rate) *Bucket {
	interval := max(1, (int64(r.Per)+int64(r.Count)-1)/int64(r.Count))
	tokens := max(1, int64(float64(r.Count)*float64(time.Second)/float64(r.Per)))
	b := &Bucket{interval: interval, depth: (tokens - 1) * interval}
	b.full.Store(math.MinInt64)
	return b
}

// Left returns the number of tokens.
func (b *Bucket) Left(now time.Duration) int {
	taken := max(b.full.Load(), int64(now)) - int64(now)
	return int(max(0, (b.depth+b.interval-taken)/b.interval))
}

// Take takes a token, and reports whether there was one.
func (b *Bucket) Take(now time.Duration) bool {
	for {
		full := b.full.Load()
		from := max(full, int64(now))
		if from-int64(now) > b.depth {
			return false
		}
		if b.full.CompareAndSwap(full, from+b.interval) {
			return true
		}
	}
}

// Full returns when the bucket is full again, on its clock.
func (b *Bucket) Full() time.Duration { return time.Duration(b.full.Load()) }

// Restore continues with the fill of another bucket of the same rate, given the time when that
// one is full again. An implausibly late time counts as an empty bucket.
func (b *Bucket) Restore(full, now time.Duration) {
	b.full.Store(min(int64(full), int64(now)+b.depth+b.interval))
}
