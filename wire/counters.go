package wire

import (
	"sync"
	"sync/atomic"

	"fragwall/packet/verdict"
)

// Counters count frames that arrived on one side. Each is counted once: forwarded, dropped for
// one reason, or waiting. A frame that is held is counted, from then on, by the Counters that
// all directions of its side share. Every other frame is counted by its direction's own
// Counters. So nothing moves from one Counters to another, and whole packets do not share any.
type Counters struct {
	// mu is held while held fragments become forwarded or dropped, which moves them between two
	// counters. Everything else adds to a single counter.
	mu        sync.Mutex
	forwarded atomic.Uint64
	waiting   atomic.Int64
	dropped   [verdict.Reasons]atomic.Uint64

	receivedBytes  atomic.Uint64
	forwardedBytes atomic.Uint64
	sent           atomic.Uint64
	sentBytes      atomic.Uint64
	reassembled    atomic.Uint64
	answered       atomic.Uint64
}

// Snapshot is the state of [Counters] at one moment, in frames unless noted.
type Snapshot struct {
	Forwarded uint64
	Waiting   uint64
	Dropped   [verdict.Reasons]uint64 // by verdict.Reason
	// ReceivedBytes are the bytes of the frames that arrived, ForwardedBytes those of the
	// accepted ones. They are counted per batch, and include frames that the egress device
	// refused.
	ReceivedBytes, ForwardedBytes uint64
	// Sent and SentBytes count the frames that were sent for the forwarded ones, and their
	// bytes. They differ only if datagrams are rebuilt ([packet.EmitWhole]). SentBytes include
	// frames that the egress device refused.
	Sent, SentBytes uint64
	// Reassembled is the number of datagrams that were completed, whatever the verdict.
	Reassembled uint64
	// Answered is the number of replies that were sent to rejected datagrams.
	Answered uint64
}

// Received returns how many frames arrived: the sum of all other counts.
func (s *Snapshot) Received() uint64 {
	n := s.Forwarded + s.Waiting
	for _, dropped := range s.Dropped {
		n += dropped
	}
	return n
}

// add adds the counts of another snapshot.
func (s *Snapshot) add(other Snapshot) {
	s.Forwarded += other.Forwarded
	s.Waiting += other.Waiting
	s.ReceivedBytes += other.ReceivedBytes
	s.ForwardedBytes += other.ForwardedBytes
	s.Sent += other.Sent
	s.SentBytes += other.SentBytes
	s.Reassembled += other.Reassembled
	s.Answered += other.Answered
	for r, n := range other.Dropped {
		s.Dropped[r] += n
	}
}

// addFast adds the counts of a fast path.
func (s *Snapshot) addFast(f FastCounts) {
	s.Forwarded += f.Forwarded
	s.ReceivedBytes += f.ForwardedBytes + f.DroppedBytes
	s.ForwardedBytes += f.ForwardedBytes
	s.Sent += f.Forwarded
	s.SentBytes += f.ForwardedBytes
	for r, n := range f.Dropped {
		s.Dropped[r] += n
	}
}

// Snapshot returns the counters, such that no frame is counted twice or not at all because it
// moved from one counter to another.
func (c *Counters) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Snapshot{
		Forwarded:      c.forwarded.Load(),
		Waiting:        uint64(c.waiting.Load()),
		ReceivedBytes:  c.receivedBytes.Load(),
		ForwardedBytes: c.forwardedBytes.Load(),
		Sent:           c.sent.Load(),
		SentBytes:      c.sentBytes.Load(),
		Reassembled:    c.reassembled.Load(),
		Answered:       c.answered.Load(),
	}
	for r := range c.dropped {
		s.Dropped[r] = c.dropped[r].Load()
	}
	return s
}

// drop counts a frame that was dropped without being held.
func (c *Counters) drop(why verdict.Reason) { c.dropped[why].Add(1) }

// dropWaiting counts held frames that were dropped.
func (c *Counters) dropWaiting(frames int, why verdict.Reason) {
	if frames == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting.Add(-int64(frames))
	c.dropped[why].Add(uint64(frames))
}

// written counts a batch of frames given to the egress device, of which some had been held and
// some were refused.
func (c *Counters) written(frames, waited, refused int) {
	if waited > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waiting.Add(-int64(waited))
	}
	c.forwarded.Add(uint64(frames - refused))
	if refused > 0 {
		c.dropped[verdict.EgressFailed].Add(uint64(refused))
	}
}
