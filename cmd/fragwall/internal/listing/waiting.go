package listing

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/stack"
)

// Waiting is an incomplete datagram, or a discarded one.
type Waiting struct {
	From           string     `json:"from"`
	VLANs          []uint16   `json:"vlans,omitempty"`
	Protocol       string     `json:"protocol,omitempty"` // "" for IPv6 before the first fragment arrives
	Src            netip.Addr `json:"src"`
	SrcPort        *uint16    `json:"sport,omitempty"` // only while the first fragment is held, as all transport fields
	Dst            netip.Addr `json:"dst"`
	DstPort        *uint16    `json:"dport,omitempty"`
	ICMPType       *uint8     `json:"icmp_type,omitempty"`
	ICMPCode       *uint8     `json:"icmp_code,omitempty"`
	Identification uint32     `json:"identification"`

	Fragments int      `json:"fragments"`          // number of fragments that arrived
	Received  []string `json:"received,omitempty"` // ranges of received payload bytes, such as "0-1447"
	Missing   []string `json:"missing,omitempty"`  // ranges of missing payload bytes; "4344-" if the end is not known
	// ReceivedBytes is the number of payload bytes received. Length is the length of the
	// payload, or 0 if it is not known.
	ReceivedBytes int     `json:"received_bytes"`
	Length        int     `json:"length_bytes,omitempty"`
	Memory        int     `json:"memory_bytes"`
	Age           float64 `json:"age_seconds"`
	Expires       float64 `json:"expires_seconds"`

	// Poisoned is set if the datagram was discarded. Verdict is set if the first fragment was
	// judged and the others follow. Reason is the reason for which no fragment passes.
	Poisoned bool   `json:"poisoned"`
	Verdict  string `json:"verdict,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// Source is the sum of the incomplete datagrams of one source.
type Source struct {
	From      string `json:"from"`
	Src       string `json:"src"` // prefix
	Datagrams int    `json:"datagrams"`
	Poisoned  int    `json:"poisoned_datagrams"` // how many of them are poisoned
	Fragments int    `json:"fragments"`          // received fragments of these datagrams
	Memory    int    `json:"memory_bytes"`
}

// more stands for further ranges.
const more = "and more"

// ranges returns the ranges of received and of missing payload bytes.
func ranges(w *stack.Waiting) (received, missing []string) {
	at := 0
	for _, r := range w.Received {
		if r.Start > at {
			missing = append(missing, fmt.Sprintf("%d-%d", at, r.Start-1))
		}
		received = append(received, fmt.Sprintf("%d-%d", r.Start, r.End-1))
		at = r.End
	}
	switch {
	case w.More:
		received, missing = append(received, more), append(missing, more)
	case w.Length == 0:
		missing = append(missing, fmt.Sprintf("%d-", at))
	case at < w.Length:
		missing = append(missing, fmt.Sprintf("%d-%d", at, w.Length-1))
	}
	return received, missing
}

// newWaiting returns the record of an incomplete datagram.
func newWaiting(w *stack.Waiting, now time.Time) *Waiting {
	r := &Waiting{
		From: w.From.String(), Src: w.Src, Dst: w.Dst, Identification: w.Identification,
		Fragments: w.Fragments, ReceivedBytes: w.Bytes, Length: w.Length, Memory: w.Memory,
		Age: max(0, seconds(now.Sub(w.Begun))), Expires: max(0, seconds(w.Deadline.Sub(now))), Poisoned: w.Poisoned,
	}
	for _, vlan := range w.VLANs[:w.VLANs.Len()] {
		r.VLANs = append(r.VLANs, vlan.VID())
	}
	if w.ProtocolKnown {
		r.Protocol = rules.ProtocolName(w.Protocol)
	}
	if w.HasFirst {
		switch w.First.Transport {
		case packet.Ports:
			r.SrcPort, r.DstPort = number16(w.First.SrcPort), number16(w.First.DstPort)
		case packet.ICMP:
			r.ICMPType, r.ICMPCode = number8(w.First.ICMPType), number8(w.First.ICMPCode)
		}
	}
	if !w.Poisoned {
		r.Received, r.Missing = ranges(w)
	}
	if w.Judged && !w.Poisoned {
		r.Verdict = verdict.Accept.String()
		if w.Why != verdict.Passed {
			r.Verdict = verdict.Drop.String()
		}
	}
	if w.Why != verdict.Passed {
		r.Reason = w.Why.String()
	}
	return r
}

// tupleOfWaiting returns the fields of an incomplete datagram that a selector matches.
func tupleOfWaiting(w *stack.Waiting) selector.Tuple {
	t := selector.Tuple{From: w.From, VLAN: w.VLANs.ID(), Protocol: w.Protocol, HasProtocol: w.ProtocolKnown, Src: w.Src, Dst: w.Dst}
	if w.HasFirst && w.First.Transport == packet.Ports {
		t.HasPorts, t.SrcPort, t.DstPort = true, w.First.SrcPort, w.First.DstPort
	}
	return t
}

// eachWaiting calls visit with each selected datagram.
func (l *Lister) eachWaiting(ctx context.Context, q Query, visit func(*stack.Waiting) error) error {
	matches, err := q.Selector.Filter()
	if err != nil {
		return err
	}
	return l.bump.WalkWaiting(l.pauses(ctx), func(w *stack.Waiting) error {
		if t := tupleOfWaiting(w); !matches.Matches(&t) {
			return nil
		}
		return visit(w)
	})
}

// Waiting calls yield with each selected datagram until it returns an error. If the query has a
// limit of at most maxSorted, the oldest come first, otherwise they are in no order
// ([OldestFirst]).
func (l *Lister) Waiting(ctx context.Context, q Query, yield func(*Waiting) error) error {
	if q.Limit == 0 || q.Limit > maxSorted {
		return l.eachWaiting(ctx, q, func(w *stack.Waiting) error { return yield(newWaiting(w, l.bump.Now())) })
	}
	oldest := top[Waiting]{limit: q.Limit}
	err := l.eachWaiting(ctx, q, func(w *stack.Waiting) error {
		now := l.bump.Now()
		if r := oldest.place(uint64(max(0, now.Sub(w.Begun)))); r != nil {
			*r = *newWaiting(w, now)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range oldest.sorted() {
		if err := yield(&r); err != nil {
			return err
		}
	}
	return nil
}

// OldestFirst sorts datagrams by age, and returns at most limit of them; 0 for all.
func OldestFirst(all []Waiting, limit int) []Waiting {
	slices.SortStableFunc(all, func(a, b Waiting) int { return cmp.Compare(b.Age, a.Age) })
	if limit > 0 && limit < len(all) {
		all = all[:limit]
	}
	return all
}

// Sources returns the sources of the selected datagrams, most memory first.
func (l *Lister) Sources(ctx context.Context, q Query) ([]Source, error) {
	type key struct {
		from verdict.Side
		src  netip.Prefix
	}
	all := make(map[key]*Source)
	err := l.eachWaiting(ctx, q, func(w *stack.Waiting) error {
		k := key{w.From, w.Source()}
		s := all[k]
		if s == nil {
			s = &Source{From: k.from.String(), Src: k.src.String()}
			all[k] = s
		}
		s.Datagrams++
		s.Fragments += w.Fragments
		s.Memory += w.Memory
		if w.Poisoned {
			s.Poisoned++
		}
		return nil
	})
	sources := make([]Source, 0, len(all))
	for _, s := range all {
		sources = append(sources, *s)
	}
	slices.SortFunc(sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.Src, b.Src), cmp.Compare(a.From, b.From))
	})
	if q.Limit > 0 && q.Limit < len(sources) {
		sources = sources[:q.Limit]
	}
	return sources, err
}
