package tap

import (
	"time"

	"fragwall/tun"
	"fragwall/tun/internal/gate"
)

// Backlog is what a queue of a TAP with NAPI threads holds: frames that the threads
// have not sent yet, and those that wait in the NIC's own queues. The lane waits
// rather than let it exceed [sendBuffer], and so loses nothing before a slower NIC.
//
// It waits no longer than [stalled], and from then on until there was room no
// longer than [nudge]. A frame that still finds no room is refused, as a NIC's full
// queue drops it: other flows must not wait for one that the NIC holds back.
type Backlog struct {
	queue int // descriptor
	gate  *gate.Gate
	share int  // bytes, as the kernel charges them, that may be written between two polls; 0 for a TAP without NAPI threads
	left  int  // of them
	slow  bool // the lane has waited in vain
}

// stalled is how long a lane waits for a TAP that has no room: one that is down
// never says that it has, but refuses what is written.
const stalled = 100 * time.Millisecond

// nudge gives the threads a moment of CPU time, where they lack that.
const nudge = time.Millisecond

// NewBacklog returns the backlog of the queue that a pair's lane writes to.
func (p *Pair) NewBacklog(g *gate.Gate) Backlog {
	return Backlog{queue: p.Out, gate: g, share: p.share}
}

// Take notes frames that are about to be written, each by itself or all as one, and
// waits if there is no room for them.
func (b *Backlog) Take(frames []tun.Frame) error {
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
	for i := range frames {
		b.left -= charge(&frames[i])
	}
	if len(frames) > 1 {
		b.left -= page
	}
	return nil
}

// charge returns no less than the kernel charges for a frame (skb->truesize). For
// several that are written as one it charges for whole pages of payload.
func charge(f *tun.Frame) int { return 2*len(f.Data) + 1024 }

// page is the size of a page in bytes where pages are small. Where they are larger,
// the kernel's own limit ends what this lets through.
const page = 4096

// Full reports whether the lane has to wait before it writes.
func (b *Backlog) Full() bool { return b.share > 0 && b.left <= 0 }
