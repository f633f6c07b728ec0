package listing

import (
	"cmp"
	"container/heap"
	"slices"
)

// top keeps the records of the greatest weights.
type top[T any] struct {
	limit  int
	ranked ranked[T]
}

// place returns where a record of a weight is to be put, in place of the lightest one
// where there are enough; nil where it is none of the heaviest.
func (t *top[T]) place(weight uint64) *T {
	if len(t.ranked) < t.limit {
		r := new(T)
		heap.Push(&t.ranked, weighed[T]{weight, r})
		return r
	}
	if t.limit == 0 || weight <= t.ranked[0].weight {
		return nil
	}
	r := t.ranked[0].record
	t.ranked[0].weight = weight
	heap.Fix(&t.ranked, 0)
	return r
}

// sorted returns the records, the heaviest first.
func (t *top[T]) sorted() []T {
	slices.SortFunc(t.ranked, func(a, b weighed[T]) int { return cmp.Compare(b.weight, a.weight) })
	records := make([]T, len(t.ranked))
	for i, w := range t.ranked {
		records[i] = *w.record
	}
	return records
}

type weighed[T any] struct {
	weight uint64
	record *T
}

// ranked is a heap, the lightest on top (container/heap).
type ranked[T any] []weighed[T]

func (h ranked[T]) Len() int           { return len(h) }
func (h ranked[T]) Less(i, j int) bool { return h[i].weight < h[j].weight }
func (h ranked[T]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ranked[T]) Push(x any)        { *h = append(*h, x.(weighed[T])) }
func (h *ranked[T]) Pop() any          { panic("nothing is taken out") }

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
