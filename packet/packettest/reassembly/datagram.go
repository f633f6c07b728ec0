package reassembly

import (
	"bytes"

	"fragwall/packet/verdict"
)

// maxPacket is the most that an IP packet may have, in bytes.
const maxPacket = 65535

// Fragment is a range of a datagram's payload, in bytes, and what is in it.
type Fragment struct {
	Start, End int
	More       bool // the M flag
	Data       []byte
	Headers    int // bytes in front of the payload that count against 65,535
}

// Datagram is the fragments of a datagram, in the order in which they came.
type Datagram struct{ Fragments []Fragment }

// Objection returns why a fragment can't be of the datagram beside those that are
// there; [verdict.Passed] where it can. Without contents, fragments of the same
// range count as equal.
func (d *Datagram) Objection(n Fragment, contents bool) verdict.Reason {
	reached, headers := n.End, 0
	for _, f := range append(d.Fragments, n) {
		reached = max(reached, f.End)
		if f.Start == 0 {
			headers = f.Headers
		}
	}
	for _, f := range d.Fragments {
		atTheEnd := f.End == n.End && (n.More || n.End == reached)
		if !f.More && !n.More && f.End != n.End || f.More != n.More && atTheEnd {
			return verdict.FragmentConflictingEnd
		}
	}
	for _, f := range d.Fragments {
		if !f.More && n.End > f.End || !n.More && f.End > n.End {
			return verdict.FragmentBeyondEnd
		}
	}
	for _, f := range d.Fragments {
		if f.Start == n.Start && f.End == n.End {
			if !contents || bytes.Equal(f.Data, n.Data) {
				return verdict.FragmentDuplicate
			}
			return verdict.FragmentConflict
		}
	}
	for _, f := range d.Fragments {
		if f.Start < n.End && n.Start < f.End {
			return verdict.FragmentOverlap
		}
	}
	if headers+reached > maxPacket {
		return verdict.FragmentTooLong
	}
	return verdict.Passed
}

// Add adds a fragment.
func (d *Datagram) Add(n Fragment) { d.Fragments = append(d.Fragments, n) }

// Whole returns the datagram's bytes, nil while some are missing.
func (d *Datagram) Whole() []byte {
	var all []byte
	for {
		next := -1
		for i, f := range d.Fragments {
			if f.Start == len(all) {
				next = i
			}
		}
		if next < 0 {
			return nil
		}
		all = append(all, d.Fragments[next].Data...)
		if !d.Fragments[next].More {
			return all
		}
	}
}
