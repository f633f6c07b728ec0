package listing

import (
	"cmp"
	"container/heap"
	"slices"
)

// top keeps the flows of the greatest weights.
type top struct {
	limit  int
	ranked ranked
}

// place returns where the record of a flow with a weight is to be put, in place of the
// lightest one where there are enough; nil where it is none of the heaviest.
func (t *top) place(weight uint64) *Flow {
	if len(t.ranked) < t.limit {
		r := new(Flow)
		heap.Push(&t.ranked, weighed{weight, r})
		return r
	}
	if t.limit == 0 || weight <= t.ranked[0].weight {
		return nil
	}
	r := t.ranked[0].flow
	t.ranked[0].weight = weight
	heap.Fix(&t.ranked, 0)
	return r
}

// sorted returns the flows, the heaviest first.
func (t *top) sorted() []Flow {
	slices.SortFunc(t.ranked, func(a, b weighed) int { return cmp.Compare(b.weight, a.weight) })
	flows := make([]Flow, len(t.ranked))
	for i, w := range t.ranked {
		flows[i] = *w.flow
	}
	return flows
}

type weighed struct {
	weight uint64
	flow   *Flow
}

// ranked is a heap, the lightest on top (container/heap).
type ranked []weighed

func (h ranked) Len() int           { return len(h) }
func (h ranked) Less(i, j int) bool { return h[i].weight < h[j].weight }
func (h ranked) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ranked) Push(x any)        { *h = append(*h, x.(weighed)) }
func (h *ranked) Pop() any          { panic("nothing is taken out") }

// Sorted puts flows in the query's order, and returns as many as it wants.
func (q *Query) Sorted(flows []Flow) []Flow {
	slices.SortFunc(flows, func(a, b Flow) int { return cmp.Compare(b.weight(q.Sort), a.weight(q.Sort)) })
	if q.Limit > 0 && q.Limit < len(flows) {
		flows = flows[:q.Limit]
	}
	return flows
}

// weight returns by how much a flow comes before others.
func (r *Flow) weight(by Order) float64 {
	switch by {
	case ByBytes:
		return float64(r.OriginalBytes + r.ReplyBytes)
	case ByPackets:
		return float64(r.OriginalPackets + r.ReplyPackets)
	case ByAge:
		return r.Age
	case ByIdle:
		return r.Idle
	}
	return 0
}
