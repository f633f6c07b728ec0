package stack

import "sync"

// The lists that a datagram is on.
const (
	byDeadline = iota // of its shard and family
	byArrival         // of its source
	lists
)

type links struct{ previous, next *Datagram }

// list is a queue of datagrams, oldest first. Any of them can be removed.
type list struct {
	kind          int // byDeadline or byArrival
	first, latest *Datagram
}

func (l *list) push(d *Datagram) {
	d.links[l.kind] = links{previous: l.latest}
	if l.latest == nil {
		l.first = d
	} else {
		l.latest.links[l.kind].next = d
	}
	l.latest = d
}

func (l *list) remove(d *Datagram) {
	at := d.links[l.kind]
	if at.previous == nil {
		l.first = at.next
	} else {
		at.previous.links[l.kind].next = at.next
	}
	if at.next == nil {
		l.latest = at.previous
	} else {
		at.next.links[l.kind].previous = at.previous
	}
	d.links[l.kind] = links{}
}

// load is what the table holds of one source.
type load struct {
	source    source
	weight    int    // bytes, see shard.slot
	datagrams list   // byArrival
	begun     uint64 // datagrams since the table last held nothing of the source
	rank      int    // its position in the heap, or light
}

// light is the rank of a load that is not in the heap.
const light = -1

// loadPool keeps the loads of sources of which the table holds nothing.
var loadPool = sync.Pool{New: func() any { return new(load) }}

// loads is a heap of sources, with the one that holds most on top (container/heap).
type loads []*load

func (h loads) Len() int           { return len(h) }
func (h loads) Less(i, j int) bool { return h[i].weight > h[j].weight }
func (h loads) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].rank, h[j].rank = i, j
}

func (h *loads) Push(x any) {
	l := x.(*load)
	l.rank = len(*h)
	*h = append(*h, l)
}

func (h *loads) Pop() any {
	old := *h
	n := len(old) - 1
	l := old[n]
	old[n] = nil
	l.rank = light
	*h = old[:n]
	return l
}
