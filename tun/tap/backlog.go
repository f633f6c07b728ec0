package tap

import (
	"time"

	"fragwall/tun"
	"fragwall/tun/internal/gate"
)

// Backlog is what a queue of a TAP with NAPI threads holds: what they have not
// seen to yet, and what waits in the NIC's own queues. The lane waits where it
// would be more than [sendBuffer], and so loses nothing before a NIC that is
// slower than itself.
//
// It waits no longer than [stalled], and from then on until there was room no
// longer than [nudge]. What still finds none is refused, as a NIC's full queue
// drops it: what goes past a flow that the NIC holds back must not wait for
// that.
type Backlog struct {
	queue int // descriptor
	gate  *gate.Gate
	share int  // bytes of the kernel's that may be written between two looks; 0 for a TAP that passes on what it takes at once
	left  int  // of them
	slow  bool // the lane has waited in vain
}

// stalled is how long a lane waits for a TAP that has no room: one that is down
// never says that it has, but refuses what is written.
const stalled = 100 * time.Millisecond

// nudge lets the threads have the CPU, where that is what they lack.
const nudge = time.Millisecond

// NewBacklog returns the backlog of the queue that a pair's lane writes to.
func (p *Pair) NewBacklog(g *gate.Gate) Backlog {
	return Backlog{queue: p.Out, gate: g, share: p.share}
}

// Take notes a frame that is about to be written, and waits if there is no
// room for it.
func (b *Backlog) Take(f *tun.Frame) error {
	if b.Full() {
		timeout := stalled
		if b.slow {
			timeout = nudge
		}
		// A queue counts as ready while less than half of its buffer is taken.
		ready, err := b.gate.WaitToWrite(b.queue, timeout)
		if err != nil {
			return err
		}
		b.slow = !ready
		b.left = b.share
	}
	b.left -= charge(f)
	return nil
}

// charge returns no less than the kernel charges for a frame (skb->truesize).
func charge(f *tun.Frame) int { return 2*len(f.Data) + 1024 }

// Full reports whether the lane has to wait before it writes.
func (b *Backlog) Full() bool { return b.share > 0 && b.left <= 0 }
