package history

import (
	"context"
	"sync"
	"time"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

const (
	// Resolution is the length of the interval that a point covers.
	Resolution = 5 * time.Second
	// Kept is the maximum number of points: one hour.
	Kept = int(time.Hour / Resolution)
	// every is the time between samples. The minimum and maximum rates of a point are per
	// sample interval.
	every = time.Second
)

// Sample is the counters at one time.
type Sample struct {
	Time      time.Time
	Sides     [verdict.Sides]wire.Snapshot
	Missed    map[verdict.Side]uint64 // frames
	Datagrams int                     // incomplete
	Bytes     int64                   // memory of incomplete datagrams
	Flows     int
}

// Read takes a sample of a box.
func Read(s *report.Source, now time.Time) Sample {
	usage := s.Bump.Usage()
	sample := Sample{Time: now, Missed: s.Missed(), Datagrams: usage.Datagrams, Bytes: usage.Bytes, Flows: s.Bump.Policy().Flows()}
	for side := range sample.Sides {
		sample.Sides[side] = s.Bump.Counters(verdict.Side(side))
	}
	return sample
}

// History is the points of the last hour.
type History struct {
	mu sync.Mutex
	// mu guards:
	points []point // a ring buffer once it has Kept points
	oldest int     // index of the oldest point
	last   *Sample // previous sample
	open   *point  // point that samples are still added to
}

// Run adds a sample from read each second, until ctx is done.
func (h *History) Run(ctx context.Context, read func(now time.Time) Sample) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for now := time.Now(); ctx.Err() == nil; {
		h.add(read(now))
		select {
		case now = <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// add adds the difference between the previous sample and this one to the open point.
func (h *History) add(s Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.last
	h.last = &s
	if before == nil || !s.Time.After(before.Time) { // the first sample, or the clock was set back
		h.open = nil
		return
	}
	if h.open == nil {
		h.open = &point{}
	}
	h.open.add(before, &s)
	if h.open.span < Resolution {
		return
	}
	if len(h.points) < Kept {
		h.points = append(h.points, *h.open)
	} else {
		h.points[h.oldest] = *h.open
		h.oldest = (h.oldest + 1) % Kept
	}
	h.open = nil
}

// Since returns the points that ended after a time, oldest first.
func (h *History) Since(moment time.Time) []Point {
	h.mu.Lock()
	defer h.mu.Unlock()
	points := []Point{}
	for i := range h.points {
		if p := &h.points[(h.oldest+i)%len(h.points)]; p.end.After(moment) {
			points = append(points, p.point())
		}
	}
	return points
}

// Restore replaces the points by those of another process, oldest first.
func (h *History) Restore(points []Point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.points, h.oldest = make([]point, 0, Kept), 0
	for _, p := range points[max(0, len(points)-Kept):] {
		h.points = append(h.points, p.restore())
	}
}
