package reassembly

import (
	"bytes"

	"fragwall/packet/verdict"
)

// maxPacket is the maximum length of an IP packet, in bytes.
const maxPacket = 65535

// Fragment is a range of a datagram's payload, in bytes, and its contents.
type Fragment struct {
	Start, End int
	More       bool // the M flag
	Data       []byte
	Headers    int // bytes before the payload that count toward 65,535
}

// Datagram is the fragments of a datagram, in the order of their arrival.
type Datagram struct{ Fragments []Fragment }

// Objection returns why a fragment cannot belong to the datagram with its present fragments, or
// [verdict.Passed] if it can. Without contents, fragments with the same range count as equal.
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

// Whole returns the datagram's bytes, or nil if some are missing.
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
