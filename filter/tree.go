package filter

import (
	"slices"

	"fragwall/packet/verdict"
)

// tree finds the first rule that matches a key.
//
// A node divides rules by one dimension, by the key's class in it. Rules that span so
// many classes that they would be in too many children are in a separate tree, the rest.
// So a lookup may follow several paths, and the first rule on any of them wins.
//
// For 10, 1,000 and 10,000 mixed rules, a lookup takes 64, 64 and 98 ns with the tree
// (for 100,000 rules 110 ns); 95, 212 and 432 ns with bit vectors, in 54 MiB, which grow
// with the square of the rules; 220, 7,200 and 11,500 ns with tuple-space search, which
// is fastest only if all rules are alike (BenchmarkShapes).
//
// If rules overlap in every way, the tree stops dividing and compares one by one. It is
// never slower than a list (BenchmarkHostileLookup), and needs little more memory than
// for other policies.
type tree struct {
	root ref
	// fragments is the root of the rules with a fragmented field and of those that
	// accept. It is empty if no rule has the field.
	fragments ref
	nodes     []node
	slots     []ref          // children of nodes
	bounds    []uint32       // first classes of the children of nodes that are searched
	leaves    []entry        // a count, followed by as many entries
	rules     []compiledRule // by rule
	sets      [][dimensions][]run
	apart     [dimensions]uint32 // the class of ports in datagrams that are too short
}

// ref is the number of a node; with leafBit, the beginning of a leaf; with both bits, a
// single rule that must be compared completely.
type ref uint32

const (
	leafBit ref = 1 << 31
	ruleBit ref = 1 << 30
)

// node has a child for each interval of classes in a dimension.
type node struct {
	dim    uint8
	direct bool   // one child per class; otherwise the intervals are searched
	count  uint32 // number of intervals
	slots  uint32 // index of its first child
	bounds uint32 // index of the intervals' first classes
	rest   ref    // another tree to search; emptyLeaf if there is none
	first  uint32 // the first rule in rest
}

// emptyLeaf is the leaf without entries.
const emptyLeaf = leafBit

// entry is a rule in a leaf. Its lower bits have the dimensions that are still to be
// compared.
type entry uint32

const (
	maskBits  = dimensions
	wholeMask = 1<<maskBits - 1
)

// MaxRules is the maximum number of rules in a policy.
const MaxRules = 1 << (32 - maskBits)

func (e entry) rule() uint32 { return uint32(e) >> maskBits }
func (e entry) mask() uint32 { return uint32(e) & wholeMask }

// compiledRule is what a verdict needs of a rule, in one cache line. It begins with the
// lowest and the highest class that the rule matches in each dimension.
type compiledRule struct {
	within  [dimensions]run
	gaps    uint8          // dimensions in which the rule does not match all classes between the two
	apart   uint8          // dimensions in which it also matches the tree's class apart
	action  verdict.Action // the rule's
	needs   uint8          // needPorts or needICMP
	limited bool
	flags   Flags // of its verdicts, if no limit was used up before
	_       [2]uint8
}

// Fields of the transport header that a rule needs.
const (
	needPorts = 1 << iota
	needICMP
)

// none is greater than every rule.
const none = MaxRules

// find returns the first rule that matches a key, starting with number from, or none.
func (t *tree) find(k *key, from uint32) uint32 { return t.search(t.root, k, from) }

// search is [tree.find] below a root.
func (t *tree) search(root ref, k *key, from uint32) uint32 {
	best := uint32(none)
	// Each node on a path divides another dimension, and takes one entry off before it
	// adds its own rest.
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

// first returns the first rule in a leaf that matches a key, with a number from from up
// to best, or best.
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
	lo, hi := uint32(0), n.count // the first one begins at 0
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; bounds[mid] <= class {
			lo = mid
		} else {
			hi = mid
		}
	}
	return t.slots[n.slots+lo]
}

// matches compares a rule and a key in the dimensions of a mask.
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

// matchesGaps compares dimensions in which the rule has several runs.
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
