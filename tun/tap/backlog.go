package tap

import (
	"time"

	"fragwall/tun"
	"fragwall/tun/internal/gate"
)

// Backlog is what a queue of a TAP with NAPI threads holds: frames that the threads have not
// sent yet, and frames in the NIC's own queues. The lane waits so that the backlog does not
// exceed [sendBuffer]; so no frame is lost in front of a slower NIC.
//
// The lane waits at most [stalled], and after that, until there is room again, at most [nudge]
// each time. A frame that still finds no room is refused, as a NIC drops frames when its queue
// is full: other flows must not wait for one that the NIC delays.
type Backlog struct {
	queue int // descriptor
	gate  *gate.Gate
	share int  // bytes, as the kernel charges them, that may be written between two polls; 0 for a TAP without NAPI threads
	left  int  // rest of the share
	slow  bool // the last wait timed out
}

// stalled is how long a lane waits for a TAP without room. A TAP that is down never becomes
// writable, but refuses what is written.
const stalled = 100 * time.Millisecond

// nudge is a short wait that gives the NAPI threads CPU time if they lack it.
const nudge = time.Millisecond

// NewBacklog returns the backlog of the queue that a pair's lane writes to.
func (p *Pair) NewBacklog(g *gate.Gate) Backlog {
	return Backlog{queue: p.Out, gate: g, share: p.share}
}

// Take records that frames are about to be written, each separately or all as one, and waits if
// there is no room for them.
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

// charge returns an upper limit on what the kernel charges for a frame (skb->truesize). For
// several frames that are written as one it charges whole pages of payload.
func charge(f *tun.Frame) int { return 2*len(f.Data) + 1024 }

// page is the size of a page in bytes on most machines. Where pages are larger, the kernel's
// own limit applies to what exceeds this estimate.
const page = 4096

// Full reports whether the lane has to wait before it writes.
func (b *Backlog) Full() bool { return b.share > 0 && b.left <= 0 }
