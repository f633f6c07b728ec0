package replay

import (
	"hash/maphash"
	"time"

	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// copies detects a capture of both NICs of a box. Such a capture has each forwarded frame
// twice: once as it arrived and once as it left.
type copies struct {
	seed   maphash.Seed
	latest [copiesKept]uint64 // keys of the latest frames, a ring buffer
	next   int                // index into latest
	came   map[uint64]arrival // key: hash of the frame
}

// arrival is the side and time of a frame.
type arrival struct {
	side verdict.Side
	at   time.Time
}

// A copy comes at most copyAfter and copiesKept frames after the original.
const (
	copiesKept = 4096
	copyAfter  = time.Second
)

func newCopies() *copies {
	return &copies{seed: maphash.MakeSeed(), came: make(map[uint64]arrival, copiesKept)}
}

// isCopy reports whether the same frame was on the other side shortly before. Each frame has at
// most one copy.
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
