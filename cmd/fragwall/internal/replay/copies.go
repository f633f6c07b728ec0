package replay

import (
	"hash/maphash"
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// copies recognises a capture of both NICs of a box, which has each frame that
// the box passed twice: as it came in by one, and as it left by the other.
type copies struct {
	seed   maphash.Seed
	latest [copiesKept]uint64 // the keys in the order of their frames
	next   int                // in latest
	came   map[uint64]arrival // by the hash of the frame
}

// arrival is when and where a frame came in.
type arrival struct {
	side verdict.Side
	at   time.Time
}

// A copy comes within a second, and so many frames, of what it is a copy of.
const (
	copiesKept = 4096
	copyAfter  = time.Second
)

func newCopies() *copies {
	return &copies{seed: maphash.MakeSeed(), came: make(map[uint64]arrival, copiesKept)}
}

// isCopy reports whether a frame that came in by a side came in by the other
// shortly before. Each frame has one copy at most.
func (c *copies) isCopy(f capture.Frame, from verdict.Side) bool {
	key := maphash.Bytes(c.seed, f.Data)
	if before, ok := c.came[key]; ok && before.side != from {
		delete(c.came, key)
		return f.Time.Sub(before.at).Abs() <= copyAfter
	}
	delete(c.came, c.latest[c.next])
	c.latest[c.next] = key
	c.next = (c.next + 1) % copiesKept
	c.came[key] = arrival{from, f.Time}
	return false
}
