package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Beginning is a part of a datagram, from its first byte on, that was accepted and
// went on without the table's doing. Its fragments have the same length each, and no
// more headers than they need.
type Beginning struct {
	Bytes int       // of the fragmentable part: a multiple of Unit, which may be 0
	Unit  int       // of each fragment, in bytes: a multiple of 8
	First time.Time // when the first fragment came
}

// findBegun returns the datagram of a fragment, where a part of it may have gone on
// without the table's doing.
func (s *shard) findBegun(d *Datagram, p *packet.Parsed, from source, now time.Time) *Datagram {
	if d.count > 0 && !now.Before(d.deadline) { // of a beginning: later ones are in front of it
		k := d.key
		s.discard(d, verdict.FragmentTimeout)
		d = s.find(k, from, now)
	}
	if d.count > 0 || d.poisoned {
		return d
	}
	begun, ok := s.options.Begun(p, d.key.side)
	deadline := begun.First.Add(s.options.timeout(d.family))
	if !ok || begun.Bytes == 0 || !now.Before(deadline) {
		return d
	}
	d.begin(begun)
	d.deadline = deadline
	s.charge(d, claimed(d.count))
	return d
}

// ipv4Header is how long an IPv4 header without options is, in bytes (RFC 791 §3.1).
const ipv4Header = 20

// begin claims what has gone on of a new datagram.
func (d *Datagram) begin(begun Beginning) {
	for at := 0; at < begun.Bytes; at += begun.Unit {
		d.claims.add(at, at+begun.Unit)
		d.count++
	}
	d.have, d.reached = begun.Bytes, begun.Bytes
	if d.family == familyIPv4 {
		d.headers = ipv4Header
	}
	d.judged, d.verdict = true, verdict.Passed
}
