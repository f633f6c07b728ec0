package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Beginning is the first part of a datagram that was accepted and forwarded without passing
// through the table. All its fragments have the same length, and no more headers than they
// need.
type Beginning struct {
	Bytes int       // of the fragmentable part: a multiple of Unit, which may be 0
	Unit  int       // of each fragment, in bytes: a multiple of 8
	First time.Time // when the first fragment arrived
}

// findBegun returns the datagram of a fragment. A part of the datagram may have been forwarded
// without passing through the table.
func (s *shard) findBegun(d *Datagram, p *packet.Parsed, from source, now time.Time) *Datagram {
	if d.count > 0 && !now.Before(d.deadline) { // of a beginning: later datagrams are in front of it
		k := d.key
		s.discard(d, verdict.FragmentTimeout)
		d = s.find(k, from, now)
	}
	if d.count > 0 || d.poisoned {
		return d
	}
	begun, ok := s.options.Begun(p, d.key.side)
	if ok && s.lasts(begun, d.family, now) {
		s.beginWith(d, begun)
	}
	return d
}

// lasts reports whether a beginning has any bytes and has not reached its deadline.
func (s *shard) lasts(begun Beginning, f family, now time.Time) bool {
	return begun.Bytes > 0 && now.Before(begun.First.Add(s.options.timeout(f)))
}

// beginWith starts a new datagram with the part of it that was already forwarded.
func (s *shard) beginWith(d *Datagram, begun Beginning) {
	d.begin(begun)
	d.deadline = begun.First.Add(s.options.timeout(d.family))
	s.charge(d, claimed(d.count))
}

// Begin takes over a part of a datagram that was forwarded without passing through the table.
// p holds the header fields that identify the datagram. Begin changes nothing if the table
// already knows the datagram.
func (v *Validator) Begin(p *packet.Parsed, side verdict.Side, begun Beginning, now time.Time) {
	k := keyOf(p, side)
	from := k.source()
	s := v.lock(from)
	defer s.mu.Unlock()
	if s.waiting[k] == nil && s.lasts(begun, k.family, now) {
		s.beginWith(s.find(k, from, now), begun)
	}
}

// ipv4Header is the length of an IPv4 header without options, in bytes (RFC 791 §3.1).
const ipv4Header = 20

// begin claims the part of a new datagram that was already forwarded.
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
