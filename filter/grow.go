package filter

import (
	"cmp"
	"encoding/binary"
	"slices"

	"fragwall/packet/verdict"
)

// leafSize is the number of rules up to which a leaf compares them one by one.
const leafSize = 4

// maxCopies is the average number of copies of a rule in the children of a node. Rules
// that span most children go elsewhere.
const maxCopies = 4

// grower builds a tree.
type grower struct {
	*tree
	classes [dimensions]uint32
	room    int            // number of entries and slots that the tree may still get
	known   map[string]ref // subtrees by their rules
}

// newTree returns the tree of the rules. sets has the classes that each rule matches in
// each dimension, classes their number per dimension, and apart the class that every rule
// with ports matches.
func newTree(rules []Rule, sets [][dimensions][]run, classes, apart [dimensions]uint32) *tree {
	t := &tree{rules: make([]compiledRule, len(sets)), sets: sets, apart: apart, leaves: []entry{0}}
	// Policies need far less. The limit bounds the memory for rules that overlap in every
	// way; their lookup then compares more rules one by one.
	g := grower{tree: t, classes: classes, room: 100*len(sets) + 1<<16, known: make(map[string]ref)}
	var all []entry
	for rule, set := range sets {
		if e, possible := g.enclose(uint32(rule), &rules[rule], set); possible {
			all = append(all, e)
		}
	}
	t.root = g.grow(g.prune(all))
	t.fragments = emptyLeaf
	asks := func(e entry) bool { return rules[e.rule()].Fragmented != nil }
	if slices.ContainsFunc(all, asks) {
		t.fragments = g.grow(g.prune(slices.DeleteFunc(all, func(e entry) bool {
			return rules[e.rule()].Action != verdict.Accept && !asks(e)
		})))
	}
	t.nodes, t.slots = slices.Clip(t.nodes), slices.Clip(t.slots)
	t.bounds, t.leaves = slices.Clip(t.bounds), slices.Clip(t.leaves)
	return t
}

// enclose compiles a rule and makes an entry that compares it completely. It reports
// whether the rule can match at all.
func (g *grower) enclose(rule uint32, r *Rule, set [dimensions][]run) (entry, bool) {
	c := &g.rules[rule]
	c.action, c.limited = r.Action, r.Limit != Rate{}
	c.flags = Logged.where(r.Log) | Cacheable.where(!r.Log && !c.limited && r.Action != verdict.Reject)
	if r.needsPorts() {
		c.needs |= needPorts
	}
	if r.needsICMP() {
		c.needs |= needICMP
	}
	e := entry(rule << maskBits)
	for d, runs := range set {
		if len(runs) == 0 {
			return 0, false
		}
		if runs[0] != (run{0, g.classes[d] - 1}) {
			e |= 1 << d
		}
		if last := len(runs) - 1; last > 0 && runs[last] == (run{g.apart[d], g.apart[d]}) {
			c.apart |= 1 << d
			runs = runs[:last]
		}
		c.within[d] = run{runs[0].Lo, runs[len(runs)-1].Hi}
		if len(runs) > 1 {
			c.gaps |= 1 << d
		}
	}
	return e, true
}

// prune removes the entries after a rule that always matches.
func (g *grower) prune(list []entry) []entry {
	for i, e := range list {
		if e.mask() == 0 && !g.rules[e.rule()].limited {
			return list[:i+1]
		}
	}
	return list
}

// grow returns the tree for a list of rules in order.
func (g *grower) grow(list []entry) ref {
	switch len(list) {
	case 0:
		return emptyLeaf
	case 1:
		return leafBit | ruleBit | ref(list[0].rule())
	}
	name := make([]byte, 0, len(list)*4)
	for _, e := range list {
		name = binary.NativeEndian.AppendUint32(name, uint32(e))
	}
	if known, ok := g.known[string(name)]; ok {
		return known
	}
	var at ref
	if best, ok := g.choose(list); ok {
		at = g.branch(list, best)
	} else {
		at = leafBit | ref(len(g.leaves))
		g.leaves = append(append(g.leaves, entry(len(list))), list...)
	}
	g.known[string(name)] = at
	return at
}

// choose returns the cut that leaves the fewest rules to compare, and whether it is worth
// a node.
func (g *grower) choose(list []entry) (best cut, ok bool) {
	if len(list) <= leafSize {
		return best, false
	}
	for d := range dimensions {
		if c := g.cut(list, d); c.remain < float64(len(list)) && (!ok || c.remain < best.remain) {
			best, ok = c, true
		}
	}
	if !ok || best.remain > 0.9*float64(len(list)) || g.room < best.room {
		return best, false
	}
	g.room -= best.room
	return best, true
}

// cut divides rules by one dimension: into intervals of classes in which their sets do
// not change.
type cut struct {
	dim    int
	starts []uint32 // where the intervals begin
	direct bool
	widest int     // rules that span more intervals go into rest
	remain float64 // average number of rules that remain per rule, including rest
	room   int     // entries and slots that it needs
}

// cut evaluates a dimension.
func (g *grower) cut(list []entry, dim int) cut {
	c := cut{dim: dim, starts: []uint32{0}}
	for _, e := range list {
		if e.mask()>>dim&1 == 0 {
			continue
		}
		for _, r := range g.sets[e.rule()][dim] {
			c.starts = append(c.starts, r.Lo)
			if r.Hi+1 < g.classes[dim] {
				c.starts = append(c.starts, r.Hi+1)
			}
		}
	}
	slices.Sort(c.starts)
	c.starts = slices.Compact(c.starts)
	intervals := len(c.starts)
	if c.remain = float64(len(list)); intervals == 1 {
		return c
	}
	c.direct = int(g.classes[dim]) <= 4*intervals+64

	spans := make([]int, len(list))
	for i, e := range list {
		for from, to := range c.spans(g.tree, e) {
			spans[i] += to - from
		}
	}
	c.widest = widest(spans, maxCopies*len(list)+64)

	rest, entries := 0, 0
	change := make([]int, intervals+1)
	for i, e := range list {
		if spans[i] > c.widest {
			rest++
			continue
		}
		entries += spans[i]
		for from, to := range c.spans(g.tree, e) {
			change[from]++
			change[to]--
		}
	}
	if entries == 0 {
		return c
	}
	squares, now := 0.0, 0
	for _, n := range change {
		now += n
		squares += float64(now) * float64(now)
	}
	c.remain = squares/float64(entries) + float64(rest)
	if rest > 0 {
		c.remain++ // another path to search
	}
	c.room = entries + intervals
	if c.direct {
		c.room += int(g.classes[dim])
	}
	return c
}

// spans yields the intervals that a rule is in, as half-open ranges.
func (c *cut) spans(t *tree, e entry) func(yield func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		if e.mask()>>c.dim&1 == 0 {
			yield(0, len(c.starts))
			return
		}
		for _, r := range t.sets[e.rule()][c.dim] {
			from, _ := slices.BinarySearch(c.starts, r.Lo)
			to, _ := slices.BinarySearch(c.starts, r.Hi+1)
			if !yield(from, to) {
				return
			}
		}
	}
}

// widest returns the largest span with which the rules fit into room entries, the narrow
// rules first.
func widest(spans []int, room int) int {
	sorted := slices.Clone(spans)
	slices.SortFunc(sorted, cmp.Compare[int])
	for i, span := range sorted {
		if room -= span; room < 0 {
			if i == 0 {
				return 0
			}
			return min(sorted[i-1], span-1)
		}
	}
	return sorted[len(sorted)-1]
}

// branch makes the node of a cut and the trees below it.
func (g *grower) branch(list []entry, c cut) ref {
	at := len(g.nodes)
	g.nodes = append(g.nodes, node{})
	children, rest := g.deal(list, c)
	n := node{dim: uint8(c.dim), direct: c.direct, count: uint32(len(children)), slots: uint32(len(g.slots)), rest: emptyLeaf}
	width := len(children)
	if c.direct {
		width = int(g.classes[c.dim])
	} else {
		n.bounds = uint32(len(g.bounds))
		g.bounds = append(g.bounds, c.starts...)
	}
	g.slots = append(g.slots, make([]ref, width)...)
	for i, child := range children {
		tree := g.grow(g.prune(child))
		if !c.direct {
			g.slots[int(n.slots)+i] = tree
			continue
		}
		end := width
		if i+1 < len(c.starts) {
			end = int(c.starts[i+1])
		}
		for class := int(c.starts[i]); class < end; class++ {
			g.slots[int(n.slots)+class] = tree
		}
	}
	if len(rest) > 0 {
		n.first = rest[0].rule()
		n.rest = g.grow(g.prune(rest))
	}
	g.nodes[at] = n
	return ref(at)
}

// deal distributes the rules of a list, in order, to their intervals. Inside an interval
// the dimension needs no further comparison.
func (g *grower) deal(list []entry, c cut) (children [][]entry, rest []entry) {
	counts := make([]int, len(c.starts))
	narrow := make([]bool, len(list))
	total := 0
	for i, e := range list {
		span := 0
		for from, to := range c.spans(g.tree, e) {
			span += to - from
		}
		if narrow[i] = span <= c.widest; !narrow[i] {
			rest = append(rest, e)
			continue
		}
		total += span
		for from, to := range c.spans(g.tree, e) {
			for j := from; j < to; j++ {
				counts[j]++
			}
		}
	}
	all := make([]entry, 0, total)
	children = make([][]entry, len(counts))
	for j, n := range counts {
		children[j] = all[len(all) : len(all) : len(all)+n]
		all = all[:len(all)+n]
	}
	for i, e := range list {
		if !narrow[i] {
			continue
		}
		for from, to := range c.spans(g.tree, e) {
			for j := from; j < to; j++ {
				children[j] = append(children[j], e&^(1<<c.dim))
			}
		}
	}
	return children, rest
}
