package filter

import (
	"net/netip"

	"fragwall/filter/flow"
)

// IndexOf returns a function that reports, by the address index, whether an address is in a
// set. Class 0 is that of the address 0.0.0.0, which must not be in the set.
func IndexOf(s AddrSet) func(netip.Addr) bool {
	n := &interner[point]{domain: addressDomain}
	n.add(points(s))
	x := newAddressIndex(n.divide())
	return func(a netip.Addr) bool { return x.class(a) != 0 }
}

// LimitFlows gives a table without flows a smaller limit than [flow.Max].
func LimitFlows(t *Table, limit int) { t.flows = flow.New(flow.Options{Limit: limit}) }
