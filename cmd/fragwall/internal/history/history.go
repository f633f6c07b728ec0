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
	// Resolution is the time that a point is of.
	Resolution = 5 * time.Second
	// Kept is how many points there are: an hour's.
	Kept = int(time.Hour / Resolution)
	// every is the time between samples: what the lowest and highest rates of a
	// point are of.
	every = time.Second
)

// Sample is the counters at a moment.
type Sample struct {
	Time      time.Time
	Sides     [verdict.Sides]wire.Snapshot
	Missed    map[verdict.Side]uint64 // frames
	Datagrams int                     // in waiting
	Bytes     int64                   // of memory, in waiting
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

// History is the points of the last hour, the oldest first.
type History struct {
	mu sync.Mutex
	// mu guards:
	points []point // a ring, once it is full
	oldest int     // index of the oldest point
	last   *Sample // before the next one
	open   *point  // that samples are still added to
}

// Run adds what read returns each second, until ctx is done.
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

// add counts what there was between the sample before and this one.
func (h *History) add(s Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.last
	h.last = &s
	if before == nil || !s.Time.After(before.Time) { // the first, or the clock was set back
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

// Since returns the points that ended after a moment, the oldest first.
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

// Restore goes on from points of another process, the oldest first.
func (h *History) Restore(points []Point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.points, h.oldest = make([]point, 0, Kept), 0
	for _, p := range points[max(0, len(points)-Kept):] {
		h.points = append(h.points, p.restore())
	}
}
