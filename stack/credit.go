package stack

import "sync/atomic"

// credits are for the time when there are more fragments than can be looked
// at. A source earns credit by datagrams that are accepted, and each of its
// fragments spends some of it in such a time: honest senders earn far more than
// they spend, and who makes up sources has none. Sources with the same keyed
// hash share theirs; so the credits take no more memory however many there are.
type credits struct {
	hash  keyedHash
	slots [creditSlots]credit
}

const (
	creditSlots = 1 << 16
	// creditEarned is what a datagram earns: as many fragments as five of the
	// largest have, on Ethernet.
	creditEarned = 256
	creditMost   = 16 * creditEarned
)

// of returns the credit of a source.
func (c *credits) of(from source) *credit { return &c.slots[c.hash.index(from, creditSlots)] }

// credit is that of some sources, in fragments.
type credit struct{ atomic.Int32 }

// earn adds what a datagram earns.
func (c *credit) earn() {
	if c.Load() < creditMost {
		c.Add(creditEarned)
	}
}

// spend takes the credit for a fragment; it reports false where there is none.
func (c *credit) spend() bool {
	if c.Load() <= 0 {
		return false
	}
	c.Add(-1)
	return true
}

// Credit says that a whole datagram was accepted, to its source's credit. A
// [Validator] sees to that by itself.
func (r *Reassembler) Credit(d *Datagram) {
	r.credits.of(d.key.source()).earn()
	r.ledger.Credited(d)
}
