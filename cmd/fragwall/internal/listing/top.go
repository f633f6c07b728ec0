package listing

import (
	"cmp"
	"container/heap"
	"slices"
)

// top keeps the records with the greatest weights.
type top[T any] struct {
	limit  int
	ranked ranked[T]
}

// place returns where to store a record with a weight, or nil if it is not among the greatest.
// At the limit, it replaces the record with the least weight.
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

// sorted returns the records, greatest weight first.
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

// ranked is a heap with the least weight on top (container/heap).
type ranked[T any] []weighed[T]

func (h ranked[T]) Len() int           { return len(h) }
func (h ranked[T]) Less(i, j int) bool { return h[i].weight < h[j].weight }
func (h ranked[T]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ranked[T]) Push(x any)        { *h = append(*h, x.(weighed[T])) }
func (h *ranked[T]) Pop() any          { panic("unused") }

// Sorted sorts flows in the order of the query, and returns at most its limit.
func (q *Query) Sorted(flows []Flow) []Flow {
	slices.SortFunc(flows, func(a, b Flow) int { return cmp.Compare(b.weight(q.Sort), a.weight(q.Sort)) })
	if q.Limit > 0 && q.Limit < len(flows) {
		flows = flows[:q.Limit]
	}
	return flows
}

// weight returns the value that an order sorts by.
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
