package packettest

// Permutations calls f with each order of the numbers below n, in lexical order. The
// slice is valid only during the call.
func Permutations(n int, f func(order []int)) {
	order := make([]int, 0, n)
	var extend func(used int)
	extend = func(used int) {
		if len(order) == n {
			f(order)
			return
		}
		for i := range n {
			if used&(1<<i) == 0 {
				order = append(order, i)
				extend(used | 1<<i)
				order = order[:len(order)-1]
			}
		}
	}
	extend(0)
}
