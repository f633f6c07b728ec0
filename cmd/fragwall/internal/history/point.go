package history

import (
	"time"

	"fragwall/packet/verdict"
)

// Point is the counters of one interval. Its JSON is a point of /api/history.
type Point struct {
	Time         time.Time       `json:"time"` // end of the interval
	Seconds      float64         `json:"seconds"`
	Sides        map[string]Side `json:"sides"` // by ingress side
	MaxDatagrams int             `json:"max_waiting_datagrams"`
	MaxBytes     int64           `json:"max_waiting_bytes"`
	MaxFlows     int             `json:"max_flows"`
}

// Side is the counters of the frames that arrived on a side.
type Side struct {
	Received       uint64 `json:"received_frames"`
	Forwarded      uint64 `json:"forwarded_frames"`
	ForwardedBytes uint64 `json:"forwarded_bytes"`
	// MinRate and MaxRate are the rates of the second with the fewest and with the most bytes.
	MinRate float64           `json:"min_forwarded_bytes_per_second"`
	MaxRate float64           `json:"max_forwarded_bytes_per_second"`
	Dropped map[string]uint64 `json:"dropped"` // frames by reason; reasons without frames are omitted
	Missed  uint64            `json:"missed_frames"`
}

// point is a Point in a form of fixed size.
type point struct {
	end       time.Time
	span      time.Duration
	sides     [verdict.Sides]side
	datagrams int
	bytes     int64
	flows     int
}

type side struct {
	received, forwarded, forwardedBytes, missed uint64
	min, max                                    float64
	dropped                                     [verdict.Reasons]uint64
}

// add adds the difference between two samples.
func (p *point) add(before, now *Sample) {
	span := now.Time.Sub(before.Time)
	for i := range p.sides {
		s, from, to := &p.sides[i], &before.Sides[i], &now.Sides[i]
		s.received += grown(from.Received(), to.Received())
		s.forwarded += grown(from.Forwarded, to.Forwarded)
		bytes := grown(from.ForwardedBytes, to.ForwardedBytes)
		s.forwardedBytes += bytes
		rate := float64(bytes) / span.Seconds()
		if p.span == 0 || rate < s.min {
			s.min = rate
		}
		s.max = max(s.max, rate)
		for reason := range s.dropped {
			s.dropped[reason] += grown(from.Dropped[reason], to.Dropped[reason])
		}
		missed, known := before.Missed[verdict.Side(i)]
		if known {
			s.missed += grown(missed, now.Missed[verdict.Side(i)])
		}
	}
	p.end, p.span = now.Time, p.span+span
	p.datagrams, p.bytes, p.flows = max(p.datagrams, now.Datagrams), max(p.bytes, now.Bytes), max(p.flows, now.Flows)
}

// grown returns the increase of a counter, or 0 if the counter was reset, as happens when a
// device is recreated.
func grown(before, now uint64) uint64 {
	if now < before {
		return 0
	}
	return now - before
}

// point returns the Point.
func (p *point) point() Point {
	r := Point{
		Time: p.end, Seconds: p.span.Seconds(), Sides: make(map[string]Side, verdict.Sides),
		MaxDatagrams: p.datagrams, MaxBytes: p.bytes, MaxFlows: p.flows,
	}
	for i := range p.sides {
		s := &p.sides[i]
		of := Side{
			Received: s.received, Forwarded: s.forwarded, ForwardedBytes: s.forwardedBytes,
			MinRate: s.min, MaxRate: s.max, Dropped: map[string]uint64{}, Missed: s.missed,
		}
		for reason, n := range s.dropped {
			if n > 0 {
				of.Dropped[verdict.Reason(reason).String()] = n
			}
		}
		r.Sides[verdict.Side(i).String()] = of
	}
	return r
}

// restore returns the point from which the Point was made.
func (r *Point) restore() point {
	p := point{end: r.Time, span: time.Duration(r.Seconds * float64(time.Second)), datagrams: r.MaxDatagrams, bytes: r.MaxBytes, flows: r.MaxFlows}
	for i := range p.sides {
		of, s := r.Sides[verdict.Side(i).String()], &p.sides[i]
		s.received, s.forwarded, s.forwardedBytes, s.missed = of.Received, of.Forwarded, of.ForwardedBytes, of.Missed
		s.min, s.max = of.MinRate, of.MaxRate
		for reason := range s.dropped {
			s.dropped[reason] = of.Dropped[verdict.Reason(reason).String()]
		}
	}
	return p
}
