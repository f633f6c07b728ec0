package stack

import "math/bits"

// Gap is a range of a datagram's payload that has not arrived, in bytes of the fragmentable
// part.
type Gap struct {
	Start int
	End   int // exclusive; 0 if the end of the datagram is not known
}

// Missing returns the ranges of a datagram that have not arrived, in order.
func (d *Datagram) Missing() []Gap {
	var gaps []Gap
	at := 0
	came := func(start, end int) {
		if start > at {
			gaps = append(gaps, Gap{at, start})
		}
		at = max(at, end)
	}
	d.received(came)
	switch {
	case d.end == 0:
		gaps = append(gaps, Gap{Start: at})
	case at < d.end:
		gaps = append(gaps, Gap{at, d.end})
	}
	return gaps
}

// received calls f for the bytes of each fragment that has arrived, in order.
func (d *Datagram) received(f func(start, end int)) {
	if len(d.claims.list) > 0 || d.claims.blocks != nil {
		d.claims.each(f)
		return
	}
	for i := range d.fragments {
		f(int(d.fragments[i].Start), d.fragments[i].End())
	}
}

// each calls f for every range that was claimed, in order. If the claims are bits, a range ends
// at a multiple of 8.
func (c *claims) each(f func(start, end int)) {
	for _, r := range c.list {
		f(int(r.start), int(r.end))
	}
	if c.blocks == nil {
		return
	}
	for i, word := range c.blocks {
		for word != 0 {
			first := bits.TrailingZeros64(word)
			n := bits.TrailingZeros64(^(word >> first))
			start := (i*64 + first) * 8
			f(start, start+n*8)
			word &^= (1<<n - 1) << first
		}
	}
}
