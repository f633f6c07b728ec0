package meter

import (
	"fmt"
	"strings"
	"time"
)

// Datagrams are exact counts of what became of the datagrams of one kind, from one side.
type Datagrams struct {
	Sent       uint64
	Lost       uint64 // sent, and never received
	Duplicated uint64 // received again
	Reordered  uint64 // received after one of the same flow that was sent later, by the kernel's clock
	Corrupted  uint64 // received as nobody sent it; what was sent is lost then
	Overflowed uint64 // of the lost, those that did not fit the receiving socket's buffer
	// Behind is how many more datagrams the rate asks for, which the sender was too
	// late for, and did not send.
	Behind uint64
	Rate   float64 // datagrams sent a second
	// Gaps are the times between two datagrams of a flow that follow each other, less
	// the times between their sending: what was added on the way.
	Gaps Histogram
	// Delays are the times from sending to receiving.
	Delays Histogram
}

// add adds what became of other datagrams; their rates add up.
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

// bounds are the upper bounds of a [Histogram]'s buckets but the last.
var bounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

// Histogram counts durations. Its buckets end, exclusively, at 1, 2, 5, 10, 20, 50, 100,
// 200, 500 and 1000 ms; the last has no end.
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

// String lists the buckets that are not empty, as "<1ms 5000, <20ms 3, max 14ms".
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

// tally follows the datagrams of one flow from one side.
type tally struct {
	Datagrams
	received   uint64   // different ones
	seen       []uint64 // a bit for each number
	next       uint64   // the number after the highest that was received
	lastSent   int64    // when the last that was in order was sent,
	lastArrive int64    // and when it was received, in nanoseconds since 1970
	overflowed uint32   // what the socket said last
	// arrivals are when the latest were received, by their number modulo the length; 0
	// for none.
	arrivals [recent]int64
}

// recent is of how many datagrams a tally knows when they were received. One that comes
// later than so many others counts as reordered in any case.
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

// overtaken returns whether one that was sent after a number was received before a time.
// The order in which a socket has them is no sign of that: what the receiving kernel takes
// from two CPUs' queues, it may exchange.
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

// overflow notes how often the socket's buffer has overflowed so far.
func (t *tally) overflow(so uint32) {
	t.Overflowed += uint64(so - t.overflowed)
	t.overflowed = so
}

// finish returns the counts, once sent datagrams are all on their way no more.
func (t *tally) finish(sent uint64) Datagrams {
	d := t.Datagrams
	d.Sent, d.Lost = sent, sent-min(sent, t.received)
	return d
}
