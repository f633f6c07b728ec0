package stack

import (
	"net/netip"
	"slices"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Waiting is a copy of what is known about an incomplete datagram.
type Waiting struct {
	From           verdict.Side
	Src, Dst       netip.Addr
	VLANs          packet.VLANs
	Identification uint32
	// First is the decoded first fragment, if the table holds its frame. It has the protocol
	// and the fields of the transport header.
	First    packet.Parsed
	HasFirst bool
	// Protocol is the protocol in the header of IPv4, which every fragment has, or in the first
	// fragment.
	Protocol      uint8
	ProtocolKnown bool

	Fragments int     // that arrived
	Bytes     int     // of their payload
	Received  []Range // of the payload, in order: the first MaxRanges. None for a discarded datagram
	More      bool    // there are more ranges
	Length    int     // of the payload, in bytes; 0 while the last fragment is missing
	Memory    int     // bytes, as charged against the limit

	Begun    time.Time // when the fragment that arrived first did
	Deadline time.Time
	// Poisoned is set if the datagram was discarded: its key stays poisoned until the deadline,
	// and Why is the reason. Judged is set if the first fragment was judged and the others
	// follow it: Why is the reason for dropping them, or [verdict.Passed].
	Poisoned, Judged bool
	Why              verdict.Reason
}

// Range is a range of bytes of a datagram's payload. End is exclusive.
type Range struct{ Start, End int }

// MaxRanges is the largest number of ranges that is copied per datagram.
const MaxRanges = 16

// Limits on the datagrams, and on their fragments or claims, that are read while a part of the
// table is locked. One datagram may have more fragments or claims than that: at most 8,192.
const (
	maxHeld      = 64
	maxHeldParts = 1024
)

// Source returns the prefix that a datagram is charged to. All hosts in it count as one sender.
func (w *Waiting) Source() netip.Prefix {
	bits := sourceBitsIPv6
	if w.Src.Is4() {
		bits = sourceBitsIPv4
	}
	return netip.PrefixFrom(w.Src, bits).Masked()
}

// cursor is the position of a walk through the datagrams of a shard and a family. A datagram
// that leaves the table advances it ([shard.remove]).
type cursor struct{ next *Datagram }

// Walk calls visit with each incomplete datagram, including discarded ones, until it returns an
// error. A datagram that is in the table from the beginning to the end of the walk is visited
// once; one that arrives during the walk is not. Before each time that it locks a part of the
// table, which it does for at most maxHeld datagrams, it calls pause, which may wait or end the
// walk. It holds no lock during calls to pause and visit.
func (t *Table) Walk(pause func(datagrams int) error, visit func(*Waiting) error) error {
	entries := make([]Waiting, maxHeld)
	for _, s := range t.shards {
		for f := range s.deadlines {
			if err := s.walk(family(f), entries, pause, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shard) walk(f family, entries []Waiting, pause func(int) error, visit func(*Waiting) error) error {
	c := new(cursor)
	s.mu.Lock()
	c.next = s.deadlines[f].first
	latest := s.number
	s.cursors = append(s.cursors, c)
	s.mu.Unlock()
	defer s.forget(c)
	for {
		if err := pause(maxHeld); err != nil {
			return err
		}
		n := s.copyFrom(c, latest, entries)
		if n == 0 {
			return nil
		}
		for i := range entries[:n] {
			if err := visit(&entries[i]); err != nil {
				return err
			}
		}
	}
}

func (s *shard) forget(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursors = slices.DeleteFunc(s.cursors, func(other *cursor) bool { return other == c })
}

// pass advances the cursors that are at a datagram which leaves the table.
func (s *shard) pass(d *Datagram) {
	for _, c := range s.cursors {
		if c.next == d {
			c.next = d.links[byDeadline].next
		}
	}
}

// copyFrom copies datagrams that did not begin after the latest, and returns how many.
func (s *shard) copyFrom(c *cursor, latest uint64, entries []Waiting) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for parts := 0; n < len(entries) && parts < maxHeldParts && c.next != nil && c.next.number <= latest; n++ {
		d := c.next
		d.copyTo(&entries[n], s.options.timeout(d.family))
		parts += len(d.fragments) + len(d.claims.list)
		c.next = d.links[byDeadline].next
	}
	return n
}

// copyTo fills in what is known about a datagram.
func (d *Datagram) copyTo(w *Waiting, timeout time.Duration) {
	*w = Waiting{
		From: d.key.side, Src: netip.AddrFrom16(d.key.src), Dst: netip.AddrFrom16(d.key.dst),
		VLANs: d.key.vlans, Identification: d.key.id,
		Protocol: uint8(d.key.protocol), ProtocolKnown: d.family == familyIPv4,
		Fragments: d.count, Bytes: d.have, Received: w.Received[:0], Length: d.end, Memory: d.bytes,
		Begun: d.deadline.Add(-timeout), Deadline: d.deadline,
		Poisoned: d.poisoned, Judged: d.judged, Why: d.verdict,
	}
	if d.family == familyIPv4 {
		w.Src, w.Dst = w.Src.Unmap(), w.Dst.Unmap()
	}
	d.received(func(start, end int) {
		last := len(w.Received) - 1
		switch {
		case last >= 0 && w.Received[last].End == start:
			w.Received[last].End = end
		case last+1 == MaxRanges:
			w.More = true
		case !w.More:
			w.Received = append(w.Received, Range{start, end})
		}
	})
	if len(d.fragments) > 0 && d.fragments[0].Start == 0 && w.First.Decode(d.Frame(0)) == verdict.Passed {
		w.HasFirst = true
		w.Protocol, w.ProtocolKnown = w.First.Protocol, true
	}
}
