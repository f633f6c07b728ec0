package conntrack

import "slices"

// Candidate is a part of an exchange, by the numbers of its steps.
type Candidate struct {
	Steps []int
	Brisk []int // steps among them that are not waited for
}

// Of returns what a candidate leaves of the exchange that it is part of.
func (c Candidate) Of(e Exchange) Exchange {
	for _, i := range c.Brisk {
		e.Steps[i].Pause, e.Steps[i].Held = 0, false
	}
	return e.Keep(c.Steps)
}

// Smaller returns the candidates that lack one step, or a run of them, or a pause.
// The last step stays: it is the one in question. What honest hosts say makes no
// sense without the rest of it; where honest is set, only pauses go.
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
