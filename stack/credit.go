package stack

import "sync/atomic"

// credits are used while fragments arrive faster than the table can take them. A source earns
// credit by datagrams that are accepted. During overload, each of its fragments spends some.
// Honest senders earn far more than they spend; spoofed sources have none. Sources with the
// same keyed hash share their credit, so the memory for credits does not grow with the number
// of sources.
type credits struct {
	hash  keyedHash
	slots [creditSlots]credit
}

const (
	creditSlots = 1 << 16
	// creditEarned is what a datagram earns: the number of fragments in five datagrams of the
	// largest size, on Ethernet.
	creditEarned = 256
	creditMost   = 16 * creditEarned
)

// of returns the credit of a source.
func (c *credits) of(from source) *credit { return &c.slots[c.hash.index(from, creditSlots)] }

// credit is the credit of one or more sources, in fragments.
type credit struct{ atomic.Int32 }

// earn adds what one datagram earns.
func (c *credit) earn() {
	if c.Load() < creditMost {
		c.Add(creditEarned)
	}
}

// spend takes the credit for one fragment. It returns false if there is none.
func (c *credit) spend() bool {
	if c.Load() <= 0 {
		return false
	}
	c.Add(-1)
	return true
}

// Credit adds credit to the source of a complete datagram that was accepted. A [Validator] does
// this itself.
func (r *Reassembler) Credit(d *Datagram) {
	r.credits.of(d.key.source()).earn()
	r.ledger.Credited(d)
}
