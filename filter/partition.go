package filter

import (
	"math/rand/v2"
	"net/netip"
	"slices"
)

// Rules see each field of a datagram through sets of values. No rule distinguishes two
// values that are in the same sets, so the compiler gives them one number, their class.
// Rules become sets of classes, which are few and consecutive.

// run is the classes from Lo to Hi, inclusive.
type run = Range[uint32]

// domain is an ordered domain of values.
type domain[T any] struct {
	compare func(a, b T) int
	// after returns the next value; ok is false after the last one.
	after func(T) (next T, ok bool)
	// key appends bytes that are equal only for equal ranges.
	key func([]byte, Range[T]) []byte
	// origin has the first value, and the values that begin an interval in every
	// partition.
	origin []T
}

// interner keeps each different set of a field once.
type interner[T any] struct {
	domain domain[T]
	index  map[string]int
	sets   [][]Range[T]
	of     []int // by rule; everything for nil
	key    []byte
}

// everything is the index of the set of all values.
const everything = -1

// add records the set of the next rule; nil is everything.
func (n *interner[T]) add(set []Range[T]) {
	if set == nil {
		n.of = append(n.of, everything)
		return
	}
	n.key = n.key[:0]
	for _, r := range set {
		n.key = n.domain.key(n.key, r)
	}
	i, known := n.index[string(n.key)]
	if !known {
		if n.index == nil {
			n.index = make(map[string]int)
		}
		i = len(n.sets)
		n.index[string(n.key)] = i
		n.sets = append(n.sets, set)
	}
	n.of = append(n.of, i)
}

// addressInterner is an interner of addresses. It recognizes a long set that many rules
// share by its address in memory.
type addressInterner struct {
	interner[point]
	shared map[sharedSet]int
}

// sharedSet is the memory address and the length of a set.
type sharedSet struct {
	first *Range[netip.Addr]
	n     int
}

// addSet records the set of the next rule.
func (n *addressInterner) addSet(set AddrSet) {
	if len(set) < 2 {
		n.add(points(set))
		return
	}
	at := sharedSet{&set[0], len(set)}
	if i, known := n.shared[at]; known {
		n.of = append(n.of, i)
		return
	}
	n.add(points(set))
	if n.shared == nil {
		n.shared = make(map[sharedSet]int)
	}
	n.shared[at] = n.of[len(n.of)-1]
}

// partition is a domain cut into intervals whose values are in the same sets.
type partition[T any] struct {
	domain  domain[T]
	starts  []T      // where each interval begins, in order
	class   []uint32 // of each interval
	before  []uint32 // number of classes in the intervals before it
	classes uint32   // number of all classes
}

// edge is a value at which a set begins or ends.
type edge[T any] struct {
	at  T
	set int
}

// divide cuts the domain by the sets of the interner. It compares intervals by the sum of
// 128-bit random numbers, one for each set that contains them. The probability that two
// of n different intervals have the same sum is n²/2^129.
func (n *interner[T]) divide() *partition[T] {
	p := &partition[T]{domain: n.domain}
	count := len(n.domain.origin)
	for _, set := range n.sets {
		count += 2 * len(set)
	}
	edges := make([]edge[T], 0, count)
	for _, at := range n.domain.origin {
		edges = append(edges, edge[T]{at, everything})
	}
	for i, set := range n.sets {
		for _, r := range set {
			edges = append(edges, edge[T]{r.Lo, i})
			if next, ok := n.domain.after(r.Hi); ok {
				edges = append(edges, edge[T]{next, i})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge[T]) int { return n.domain.compare(a.at, b.at) })

	type sum [2]uint64
	random := rand.New(rand.NewPCG(1, 2))
	names := make([]sum, len(n.sets))
	for i := range names {
		names[i] = sum{random.Uint64(), random.Uint64()}
	}
	seen := make(map[sum]uint32)
	var now sum
	p.starts, p.class, p.before = make([]T, 0, count), make([]uint32, 0, count), make([]uint32, 0, count+1)
	for i, e := range edges {
		if e.set != everything {
			now[0] ^= names[e.set][0]
			now[1] ^= names[e.set][1]
		}
		if i+1 < len(edges) && n.domain.compare(edges[i+1].at, e.at) == 0 {
			continue
		}
		p.before = append(p.before, p.classes)
		class, known := seen[now]
		if !known {
			class = p.classes
			seen[now] = class
			p.classes++
		}
		p.starts = append(p.starts, e.at)
		p.class = append(p.class, class)
	}
	p.before = append(p.before, p.classes)
	return p
}

// runs returns the classes of a set that divided the domain. A class that first appears
// before one of the set's ranges also appears in an earlier range, so the classes that
// first appear inside the ranges are all of them.
func (p *partition[T]) runs(set []Range[T]) []run {
	classes := make([]run, 0, 1)
	for _, r := range set {
		from, _ := slices.BinarySearchFunc(p.starts, r.Lo, p.domain.compare)
		to := len(p.starts)
		if next, ok := p.domain.after(r.Hi); ok {
			to, _ = slices.BinarySearchFunc(p.starts, next, p.domain.compare)
		}
		if lo, hi := p.before[from], p.before[to]; lo < hi {
			classes = append(classes, run{lo, hi - 1})
		}
	}
	joined := classes[:min(1, len(classes))]
	for _, r := range classes[len(joined):] {
		if last := &joined[len(joined)-1]; last.Hi+1 == r.Lo {
			last.Hi = r.Hi
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

// byRule returns the classes of each rule's set, in the order of the rules. Equal sets
// share one slice.
func (n *interner[T]) byRule(p *partition[T]) [][]run {
	all := []run{{0, p.classes - 1}}
	shared := make([][]run, len(n.sets))
	for i, set := range n.sets {
		shared[i] = p.runs(set)
	}
	rules := make([][]run, len(n.of))
	for i, set := range n.of {
		if set == everything {
			rules[i] = all
		} else {
			rules[i] = shared[set]
		}
	}
	return rules
}
