package filter

import (
	"slices"

	"fragwall/packet/verdict"
)

// tree finds the first rule that a key matches.
//
// A node tells rules apart by one dimension, by the key's class in it. Rules
// that span so many of its classes that they would be in too many children
// stand in a tree of their own beside it, the rest, so a lookup may follow
// several ways, and the first rule found on any of them counts.
//
// Of 10, 1,000 and 10,000 mixed rules, ns a lookup: the tree 64, 64, 98 (of 100,000: 110);
// bit vectors 95, 212, 432 in 54 MiB, as the square of the rules; tuple-space search 220,
// 7,200, 11,500, the fastest only where all rules are alike (BenchmarkShapes).
//
// Where rules overlap in every way, the tree gives up telling them apart and
// compares one by one: it never takes more than a list would
// (BenchmarkHostileLookup), nor much more memory than other policies.
type tree struct {
	root ref
	// fragments is the root of the rules that ask whether a datagram came in
	// fragments and of those that accept; empty where none asks.
	fragments ref
	nodes     []node
	slots     []ref          // children
	bounds    []uint32       // where the children of the nodes that are searched begin
	leaves    []entry        // each a count and as many entries
	rules     []compiledRule // by rule
	sets      [][dimensions][]run
	apart     [dimensions]uint32 // the class of ports that a datagram is too short to hold
}

// ref is a node's number; with leafBit, where a leaf begins; or, with both
// bits, a single rule, all of which is still to be compared.
type ref uint32

const (
	leafBit ref = 1 << 31
	ruleBit ref = 1 << 30
)

// node has a child for each interval of classes in a dimension.
type node struct {
	dim    uint8
	direct bool   // a child for each class; else the intervals are searched
	count  uint32 // of intervals
	slots  uint32 // where the children begin
	bounds uint32 // where the intervals' first classes begin
	rest   ref    // what to search besides; emptyLeaf where there is nothing
	first  uint32 // the first rule in rest
}

// emptyLeaf is the leaf without entries.
const emptyLeaf = leafBit

// entry is a rule in a leaf, and as the lower bits, by dimension, what of it
// is still to be compared there.
type entry uint32

const (
	maskBits  = dimensions
	wholeMask = 1<<maskBits - 1
)

// MaxRules is how many rules a policy has at most.
const MaxRules = 1 << (32 - maskBits)

func (e entry) rule() uint32 { return uint32(e) >> maskBits }
func (e entry) mask() uint32 { return uint32(e) & wholeMask }

// compiledRule is what a verdict needs of a rule, in one cache line: the lowest and the
// highest class that it matches by in each dimension, and what follows.
type compiledRule struct {
	within  [dimensions]run
	gaps    uint8          // dimensions with classes between those that it doesn't match by
	apart   uint8          // dimensions in which it also matches by the tree's class apart
	action  verdict.Action // the rule's
	needs   uint8          // needPorts or needICMP
	limited bool
	flags   Flags // of verdicts by the rule, where no limit was asked before
	_       [2]uint8
}

// What a rule needs of the transport header.
const (
	needPorts = 1 << iota
	needICMP
)

// none is behind every rule.
const none = MaxRules

// find returns the first rule from number from on that a key matches, or
// none.
func (t *tree) find(k *key, from uint32) uint32 { return t.search(t.root, k, from) }

// search is [tree.find] from a root on.
func (t *tree) search(root ref, k *key, from uint32) uint32 {
	best := uint32(none)
	// Each node on a way tells another dimension apart, and the rest of one is
	// taken off before its own are put on.
	var pending [dimensions]ref
	waiting := 0
	for at := root; ; {
		for at&leafBit == 0 {
			n := &t.nodes[at]
			if n.rest != emptyLeaf && n.first < best {
				pending[waiting] = n.rest
				waiting++
			}
			at = t.child(n, k[n.dim])
		}
		if at &^= leafBit; at&ruleBit != 0 {
			if rule := uint32(at &^ ruleBit); rule >= from && rule < best && t.matches(rule, wholeMask, k) {
				best = rule
			}
		} else {
			best = t.first(at, from, best, k)
		}
		if waiting == 0 {
			return best
		}
		waiting--
		at = pending[waiting]
	}
}

// first returns the first rule in a leaf from number from on and before best
// that a key matches, or best.
func (t *tree) first(at ref, from, best uint32, k *key) uint32 {
	for _, e := range t.leaves[at+1:][:t.leaves[at]] {
		rule := e.rule()
		if rule >= best {
			break
		}
		if rule >= from && t.matches(rule, e.mask(), k) {
			return rule
		}
	}
	return best
}

// child returns the child of a node for a class.
func (t *tree) child(n *node, class uint32) ref {
	if n.direct {
		return t.slots[n.slots+class]
	}
	bounds := t.bounds[n.bounds:][:n.count]
	lo, hi := uint32(0), n.count // the first begins at 0
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; bounds[mid] <= class {
			lo = mid
		} else {
			hi = mid
		}
	}
	return t.slots[n.slots+lo]
}

// matches compares a rule and a key in the dimensions of mask.
func (t *tree) matches(rule, mask uint32, k *key) bool {
	if mask == 0 {
		return true
	}
	c := &t.rules[rule]
	for d := range c.within {
		w := c.within[d]
		if mask>>d&1 != 0 && k[d]-w.Lo > w.Hi-w.Lo && (c.apart>>d&1 == 0 || k[d] != t.apart[d]) {
			return false
		}
	}
	if mask &= uint32(c.gaps); mask != 0 {
		return t.matchesGaps(rule, mask, k)
	}
	return true
}

// matchesGaps compares in dimensions in which the rule has several runs.
func (t *tree) matchesGaps(rule, mask uint32, k *key) bool {
	for d, runs := range t.sets[rule] {
		if mask>>d&1 != 0 && !inRuns(runs, k[d]) {
			return false
		}
	}
	return true
}

func inRuns(runs []run, class uint32) bool {
	i, found := slices.BinarySearchFunc(runs, class, func(r run, class uint32) int {
		return int(int64(r.Lo) - int64(class))
	})
	return found || i > 0 && class <= runs[i-1].Hi
}
