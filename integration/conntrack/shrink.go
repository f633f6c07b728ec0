package conntrack

import "slices"

// Candidate is a subset of the steps of an exchange, given by their indexes.
type Candidate struct {
	Steps []int
	Brisk []int // those of Steps whose pause is removed
}

// Of returns the exchange reduced to the candidate. It changes the pauses in e.Steps.
func (c Candidate) Of(e Exchange) Exchange {
	for _, i := range c.Brisk {
		e.Steps[i].Pause, e.Steps[i].Held = 0, false
	}
	return e.Keep(c.Steps)
}

// Smaller returns candidates with one step less, with several adjacent steps less, or with one pause
// less. The last step always stays, because it is the step under test. If honest is set, only
// pauses are removed: packets of honest hosts are not consistent without the other ones.
func (c Candidate) Smaller(e Exchange, honest bool) (all []Candidate) {
	last := len(c.Steps) - 1
	if honest {
		last = 0
	}
	for size := last / 2; size > 1; size /= 2 {
		for at := 0; at+size <= last; at += size {
			all = append(all, Candidate{slices.Delete(slices.Clone(c.Steps), at, at+size), c.Brisk})
		}
	}
	for at := range last {
		all = append(all, Candidate{slices.Delete(slices.Clone(c.Steps), at, at+1), c.Brisk})
	}
	for _, i := range c.Steps {
		if e.Steps[i].After() > 0 && !slices.Contains(c.Brisk, i) {
			all = append(all, Candidate{c.Steps, append(slices.Clone(c.Brisk), i)})
		}
	}
	return all
}
