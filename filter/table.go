package filter

import (
	"slices"
	"sync/atomic"

	"fragwall/filter/flow"
	"fragwall/packet/verdict"
)

// Table is a compiled [Policy]. Any number of goroutines may judge by it.
type Table struct {
	policy   *Policy
	tree     *tree
	src, dst *addressIndex
	first    []uint32 // classes of the field's values
	second   []uint32
	protocol [256]uint32
	vlan     []uint32
	origin   [origins]uint32

	flows      *flow.Table // nil if the policy is stateless
	byDefault  Verdict     // if no rule matches, and no limit was used up
	ofVLANs    Flags       // [Cacheable] if flows are identified without VLANs, by which rules can still match
	generation uint32      // starting at 1; differs from that of the previous table

	buckets  []*Bucket                 // by rule; nil if it has no limit
	counters [verdict.Sides][]*Counter // by side and rule; shared with other tables
}

// Counter counts the datagrams that a rule decided on, for one side, so that the
// directions do not write to the same memory.
type Counter struct{ datagrams, bytes, overLimit atomic.Uint64 }

// Add counts datagrams and the bytes of their IP packets.
func (c *Counter) Add(datagrams, bytes uint64) {
	c.datagrams.Add(datagrams)
	c.bytes.Add(bytes)
}

// Count is what a rule decided on, including later datagrams of its flows.
type Count struct {
	Datagrams uint64
	Bytes     uint64 // of IP packets, including headers
	OverLimit uint64 // datagrams that matched it beyond its limit
}

// Compile returns the table of a policy, which must not change afterwards, and has at
// most [MaxRules] rules. previous is the table that the new one replaces, or nil. A rule
// with the name of a previous one continues its counters and, if the limit is the same,
// its limit. Flows continue if the new policy accepts them.
func Compile(p *Policy, previous *Table) *Table {
	t := &Table{policy: p, generation: 1, buckets: make([]*Bucket, len(p.Rules))}
	t.classify()
	t.ofVLANs = Cacheable.where(p.Stateful && p.AnyVLANs)
	for i := range p.Rules {
		if r := p.Rules[i].Limit; r != (Rate{}) {
			t.buckets[i] = NewBucket(r)
		}
	}
	for side := range t.counters {
		t.counters[side] = make([]*Counter, len(p.Rules))
	}
	if previous != nil {
		t.inherit(previous)
	}
	t.byDefault = t.fixed(p.Default, verdict.PolicyDefault)
	t.byDefault.Flags = Cacheable.where(p.Default != verdict.Reject)
	for side := range t.counters {
		t.counters[side] = complete(t.counters[side])
	}
	if p.Stateful && t.flows == nil {
		t.flows = flow.New(flow.Options{Secret: p.Secret, AnyVLANs: p.AnyVLANs})
	}
	return t
}

// classify divides each dimension into classes, and grows the tree over them.
func (t *Table) classify() {
	rules := t.policy.Rules
	src, dst := &addressInterner{interner: interner[point]{domain: addressDomain}}, &addressInterner{interner: interner[point]{domain: addressDomain}}
	first, second := &interner[uint32]{domain: numberDomain(fields)}, &interner[uint32]{domain: numberDomain(fields)}
	protocol, vlan := &interner[uint32]{domain: numberDomain(256)}, &interner[uint32]{domain: numberDomain(vlans)}
	origin := &interner[uint32]{domain: numberDomain(origins)}
	for i := range rules {
		r := &rules[i]
		src.addSet(r.Src)
		dst.addSet(r.Dst)
		f, s := r.fields()
		first.add(f)
		second.add(s)
		protocol.add(r.protocols())
		vlan.add(r.tags())
		origin.add(r.origins())
	}

	sets := make([][dimensions][]run, len(rules))
	var classes [dimensions]uint32
	settle := func(dim int, n uint32, runs [][]run) {
		classes[dim] = n
		for i := range runs {
			sets[i][dim] = runs[i]
		}
	}
	address := func(dim int, n *interner[point]) *addressIndex {
		p := n.divide()
		settle(dim, p.classes, n.byRule(p))
		return newAddressIndex(p)
	}
	number := func(dim int, n *interner[uint32], size uint32) []uint32 {
		p := n.divide()
		settle(dim, p.classes, n.byRule(p))
		return index(p, size)
	}
	t.src, t.dst = address(dimSrc, &src.interner), address(dimDst, &dst.interner)
	t.first, t.second = number(dimFirst, first, fields), number(dimSecond, second, fields)
	t.protocol = [256]uint32(number(dimProtocol, protocol, 256))
	t.vlan = number(dimVLAN, vlan, vlans)
	t.origin = [origins]uint32(number(dimOrigin, origin, origins))
	apart := [dimensions]uint32{dimFirst: t.first[fieldTruncatedPorts], dimSecond: t.second[fieldTruncatedPorts]}
	t.tree = newTree(rules, sets, classes, apart)
}

// inherit takes over the flows, and by the names of rules their counters and equal
// limits, so that verdicts of the old table still count.
func (t *Table) inherit(previous *Table) {
	t.generation = previous.generation + 1
	// If VLANs become part of the key of flows, or no longer are, the flows begin anew.
	if p := t.policy; p.Stateful && previous.flows != nil && previous.flows.AnyVLANs() == p.AnyVLANs {
		t.flows = previous.flows
	}
	old := make(map[string]int, len(previous.policy.Rules))
	for i := range previous.policy.Rules {
		old[previous.policy.Rules[i].Name] = i
	}
	for i := range t.policy.Rules {
		if j, ok := old[t.policy.Rules[i].Name]; ok {
			for side := range t.counters {
				t.counters[side][i] = previous.counters[side][j]
			}
			if t.policy.Rules[i].Limit == previous.policy.Rules[j].Limit {
				t.buckets[i] = previous.buckets[j]
			}
		}
	}
}

// complete creates the missing counters.
func complete(counters []*Counter) []*Counter {
	missing := 0
	for _, c := range counters {
		if c == nil {
			missing++
		}
	}
	fresh := make([]Counter, missing)
	for i := range counters {
		if counters[i] == nil {
			counters[i], fresh = &fresh[0], fresh[1:]
		}
	}
	return counters
}

// Flows returns the number of known flows.
func (t *Table) Flows() int {
	if t.flows == nil {
		return 0
	}
	return t.flows.Len()
}

// Expire removes expired flows from one part of the table, another one on each call. shares is
// the number of parts.
func (t *Table) Expire(now Clock, shares int) {
	if t.flows != nil {
		t.flows.Expire(now(), shares)
	}
}

// Policy returns the table's policy.
func (t *Table) Policy() *Policy { return t.policy }

// Count returns the counts of the rule with index i.
func (t *Table) Count(i int) Count {
	var c Count
	for side := range t.counters {
		n := t.counters[side][i].count()
		c.Datagrams += n.Datagrams
		c.Bytes += n.Bytes
		c.OverLimit += n.OverLimit
	}
	return c
}

// shadowTries limits the number of earlier rules that are examined for one rule.
const shadowTries = 64

// ShadowOf returns an earlier rule that matches everything that the rule with index i
// matches, or nil. If the earlier rule has no limit, rule i never decides; if it has one,
// rule i decides only beyond it. Two rules with different actions that match the same are
// not reported: one may have a limit, and the other decides on the excess.
func (t *Table) ShadowOf(i int) *Rule {
	var k key
	for d, runs := range t.tree.sets[i] {
		if len(runs) == 0 {
			return nil
		}
		k[d] = runs[0].Lo
	}
	rules := t.policy.Rules
	var limited *Rule
	from := uint32(0)
	for range shadowTries {
		found := t.tree.find(&k, from)
		if int(found) >= i {
			break
		}
		rule := &rules[found]
		switch {
		case !t.covers(int(found), i):
		case t.buckets[found] == nil:
			return rule
		case limited == nil && (rule.Action == rules[i].Action || !t.covers(i, int(found))):
			limited = rule
		}
		from = found + 1
	}
	return limited
}

// covers reports whether rule a matches everything that rule b matches.
func (t *Table) covers(a, b int) bool {
	for d, runs := range t.tree.sets[b] {
		for _, r := range runs {
			if !slices.ContainsFunc(t.tree.sets[a][d], func(of run) bool { return of.Lo <= r.Lo && r.Hi <= of.Hi }) {
				return false
			}
		}
	}
	return true
}
