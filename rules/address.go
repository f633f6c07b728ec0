package rules

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"fragwall/filter"
)

// addresses are the addresses from Lo to Hi, of one family and without zones.
type addresses = filter.Range[netip.Addr]

const addressExample = `"10.0.0.1", "2001:db8::/32" or "10.0.0.1-10.0.0.9"`

// parseAddresses returns the addresses of a decoded value.
func parseAddresses(value any) (addresses, error) {
	s, ok := value.(string)
	if !ok {
		return addresses{}, fmt.Errorf("%s is %s; want an address, a prefix or a range in a string, such as %s",
			show(value), kindOf(value), addressExample)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return addresses{Lo: a, Hi: a}, checkAddress(a)
	}
	if address, bits, isPrefix := strings.Cut(s, "/"); isPrefix {
		return parsePrefix(s, address, bits)
	}
	if lo, hi, isRange := strings.Cut(s, "-"); isRange {
		return parseRange(s, lo, hi)
	}
	return addresses{}, notAddresses(s)
}

// notAddresses returns the error for a text that is neither an address nor a prefix nor a
// range, with a suggestion.
func notAddresses(s string) error {
	if corrected := strings.Join(strings.Fields(s), ""); corrected != s {
		if _, err := parseAddresses(corrected); err == nil {
			return fmt.Errorf("%s has spaces; did you mean %q?", quote(s), corrected)
		}
	}
	return fmt.Errorf("%s is not an address, a prefix or a range; want one such as %s", quote(s), addressExample)
}

// checkAddress returns an error for an address that no packet has.
func checkAddress(a netip.Addr) error {
	switch {
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone, which packets do not have; did you mean %q?", quote(a.String()), a.WithZone("").Unmap())
	case a.Is4In6():
		return fmt.Errorf("%q is an IPv4-mapped IPv6 address; did you mean %q?", a, a.Unmap())
	}
	return nil
}

// parsePrefix returns the addresses of a prefix, given as a whole and in its parts.
func parsePrefix(whole, address, bits string) (addresses, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return addresses{}, notAddresses(whole)
	}
	n, ok := parseDecimal(bits)
	switch {
	case !ok:
		if ones, ok := maskBits(bits); ok && a.Is4() {
			return addresses{}, fmt.Errorf("%q has a netmask; did you mean \"%s/%d\"?", whole, address, ones)
		}
		return addresses{}, notAddresses(whole)
	case n > int64(a.BitLen()):
		return addresses{}, fmt.Errorf("%s has a length of %s bits; want 0 to %d", quote(whole), bits, a.BitLen())
	}
	right := netip.PrefixFrom(a.WithZone(""), int(n)).Masked()
	if a.Is4In6() && n >= 96 {
		right = netip.PrefixFrom(a.WithZone("").Unmap(), int(n)-96).Masked()
	}
	switch {
	case a.Zone() != "":
		return addresses{}, fmt.Errorf("%s has a zone, which packets do not have; did you mean %q?", quote(whole), right)
	case right.Addr().Is4() != a.Is4():
		return addresses{}, fmt.Errorf("%q is an IPv4-mapped IPv6 prefix; did you mean %q?", whole, right)
	case right.Addr() != a:
		return addresses{}, fmt.Errorf("%q has host bits set; did you mean %q?", whole, right)
	}
	return filter.PrefixRange(right), nil
}

// maskBits returns the prefix length of an IPv4 netmask, such as 255.255.255.0.
func maskBits(mask string) (int, bool) {
	a, err := netip.ParseAddr(mask)
	if err != nil || !a.Is4() {
		return 0, false
	}
	for n := range 33 {
		full := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), n)
		if full.Masked().Addr() == a {
			return n, true
		}
	}
	return 0, false
}

// parseRange returns the addresses of a range, given as a whole and by its ends.
func parseRange(whole, first, last string) (addresses, error) {
	lo, err := netip.ParseAddr(first)
	if err != nil {
		return addresses{}, notAddresses(whole)
	}
	hi, err := netip.ParseAddr(last)
	if err != nil {
		if n, ok := parseDecimal(last); ok && n <= 255 && lo.Is4() {
			head := first[:strings.LastIndexByte(first, '.')+1]
			return addresses{}, fmt.Errorf("%q does not end in an address; did you mean %q?", whole, first+"-"+head+strconv.FormatInt(n, 10))
		}
		return addresses{}, notAddresses(whole)
	}
	for _, end := range []netip.Addr{lo, hi} {
		if err := checkAddress(end); err != nil {
			return addresses{}, fmt.Errorf("%s: %w", quote(whole), err)
		}
	}
	switch {
	case lo.Is4() != hi.Is4():
		return addresses{}, fmt.Errorf("%q mixes IPv4 and IPv6; want the same family at both ends, such as \"10.0.0.1-10.0.0.9\"", whole)
	case hi.Less(lo):
		return addresses{}, fmt.Errorf("%q is in reverse order; did you mean \"%s-%s\"?", whole, hi, lo)
	}
	return addresses{Lo: lo, Hi: hi}, nil
}
