package meter

import (
	"fmt"
	"strings"
	"time"
)

// Datagrams holds exact counts of the datagrams of one kind from one side.
type Datagrams struct {
	Sent       uint64
	Lost       uint64  // sent, but never received
	Duplicated uint64  // received again
	Reordered  uint64  // received after a datagram of the same flow that was sent later, by the kernel's timestamps
	Corrupted  uint64  // received with other content than sent; the sent datagram also counts as lost
	Overflowed uint64  // lost because the receive buffer was full; included in Lost
	Behind     uint64  // not sent because the sender was late
	Rate       float64 // datagrams sent per second
	// Gaps holds the times between the arrivals of two consecutive datagrams of a flow, minus
	// the times between their sending.
	Gaps Histogram
	// Delays holds the times from sending to arrival.
	Delays Histogram
}

// add adds the counts and the rate of other datagrams.
func (d *Datagrams) add(other *Datagrams) {
	d.Sent += other.Sent
	d.Lost += other.Lost
	d.Duplicated += other.Duplicated
	d.Reordered += other.Reordered
	d.Corrupted += other.Corrupted
	d.Overflowed += other.Overflowed
	d.Behind += other.Behind
	d.Rate += other.Rate
	d.Gaps.add(&other.Gaps)
	d.Delays.add(&other.Delays)
}

// bounds lists the upper bounds of the buckets of a [Histogram], except the last one.
var bounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

// Histogram counts durations. The upper bounds of its buckets, exclusive, are 1, 2, 5, 10, 20, 50, 100,
// 200, 500 and 1000 ms; the last bucket has no bound.
type Histogram struct {
	Counts [len(bounds) + 1]uint64
	Max    time.Duration
}

func (h *Histogram) observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d >= bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Max = max(h.Max, d)
}

func (h *Histogram) add(other *Histogram) {
	for i, n := range other.Counts {
		h.Counts[i] += n
	}
	h.Max = max(h.Max, other.Max)
}

// String lists the buckets that are not empty, for example "<1ms 5000, <20ms 3, max 14ms".
func (h Histogram) String() string {
	var b strings.Builder
	for i, n := range h.Counts {
		switch {
		case n == 0:
		case i < len(bounds):
			fmt.Fprintf(&b, "<%v %d, ", bounds[i], n)
		default:
			fmt.Fprintf(&b, ">=%v %d, ", bounds[i-1], n)
		}
	}
	fmt.Fprintf(&b, "max %v", h.Max.Round(10*time.Microsecond))
	return b.String()
}

// tally counts the datagrams of one flow from one side. Times are nanoseconds since 1970.
type tally struct {
	Datagrams
	received   uint64   // number of datagrams received, without duplicates
	seen       []uint64 // bitmap of the numbers received
	next       uint64   // highest number received, plus 1
	lastSent   int64    // time when the last datagram in order was sent
	lastArrive int64    // time when it was received
	overflowed uint32   // last overflow counter of the socket
	// arrivals holds the arrival times of the latest datagrams, by their number modulo the
	// length; 0 means not received.
	arrivals [recent]int64
}

// recent is the number of datagrams whose arrival times a tally stores. A datagram that arrives after
// more later ones always counts as reordered.
const recent = 4096

// record records the arrival of a datagram.
func (t *tally) record(number uint64, sent, received int64) {
	word, bit := number/64, uint64(1)<<(number%64)
	if missing := int(word) + 1 - len(t.seen); missing > 0 {
		t.seen = append(t.seen, make([]uint64, missing)...)
	}
	if t.seen[word]&bit != 0 {
		t.Duplicated++
		return
	}
	t.seen[word] |= bit
	t.received++
	t.Delays.observe(time.Duration(received - sent))
	if number < t.next {
		if t.overtaken(number, received) {
			t.Reordered++
		}
		t.arrivals[number%recent] = received
		return
	}
	for n := max(t.next, number-min(number, recent)); n < number; n++ {
		t.arrivals[n%recent] = 0
	}
	t.arrivals[number%recent] = received
	if t.next > 0 {
		if received < t.lastArrive {
			t.Reordered++
		}
		t.Gaps.observe(max(0, time.Duration((received-t.lastArrive)-(sent-t.lastSent))))
	}
	t.next, t.lastSent, t.lastArrive = number+1, sent, received
}

// overtaken reports whether a datagram with a higher number was received before a time. The order in
// the socket is not sufficient for that: the receiving kernel may exchange datagrams from the queues of
// two CPUs.
func (t *tally) overtaken(number uint64, received int64) bool {
	if t.next-number >= recent {
		return true
	}
	for n := number + 1; n < t.next; n++ {
		if at := t.arrivals[n%recent]; at != 0 && at < received {
			return true
		}
	}
	return false
}

// overflow records the socket's overflow counter.
func (t *tally) overflow(so uint32) {
	t.Overflowed += uint64(so - t.overflowed)
	t.overflowed = so
}

// finish returns the counts when no datagram is in transit. sent is the number of datagrams sent.
func (t *tally) finish(sent uint64) Datagrams {
	d := t.Datagrams
	d.Sent, d.Lost = sent, sent-min(sent, t.received)
	return d
}
