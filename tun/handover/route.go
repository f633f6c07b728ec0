package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in a route's header (struct rtmsg).
const (
	rtmTOS      = 3
	rtmTable    = 4
	rtmProtocol = 5
	rtmScope    = 6
	rtmType     = 7
	rtmFlags    = 8
)

// settableFlags of a next hop can be set; the others report its state.
const settableFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE

// lastPriority is the priority of a route that is used last.
const lastPriority = 0xffffffff

// rtaNexthopID is the number of a next hop object (RTA_NH_ID).
const rtaNexthopID = 30

// clockTicks is the number of units per second in the times of route messages (USER_HZ).
const clockTicks = 100

// errNexthopObject is wrapped if a route of the NIC uses something that cannot be moved
// with it.
var errNexthopObject = errors.New("a next hop object (ip nexthop) cannot be moved: give the route its gateway")

// readRoutes returns all routes through a device, from any table. Those without a gateway
// come first, because the others need them.
func readRoutes(k kernel, index int) ([]message, error) {
	var list []message
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		all, err := k.dump(unix.RTM_NEWROUTE, header)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, m := range all {
			uses, err := usesDevice(m, index)
			if err != nil {
				return nil, err
			}
			if m.family() != family || !uses || isByproduct(m) {
				continue
			}
			if m.get(rtaNexthopID) != nil {
				return nil, fmt.Errorf("route %q: %w", routeWords(m, nil), errNexthopObject)
			}
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b message) int { return gateways(a) - gateways(b) })
	return list, nil
}

// usesDevice reports whether a route leads through a device.
func usesDevice(m message, index int) (bool, error) {
	if int(m.number(unix.RTA_OIF)) == index {
		return true, nil
	}
	uses := false
	err := eachNexthop(m.get(unix.RTA_MULTIPATH), func(hop []byte) {
		uses = uses || nexthopIndex(hop) == index
	})
	return uses, err
}

// isByproduct reports whether the kernel makes a route together with an address, in the
// local table, or caches it. The route of IPv6 multicast belongs to an interface.
func isByproduct(m message) bool {
	if binary.NativeEndian.Uint32(m.header[rtmFlags:])&unix.RTM_F_CLONED != 0 {
		return true
	}
	return m.number(unix.RTA_TABLE) == unix.RT_TABLE_LOCAL && m.header[rtmProtocol] == unix.RTPROT_KERNEL &&
		!(m.family() == unix.AF_INET6 && m.header[rtmType] == unix.RTN_MULTICAST)
}

// gateways returns 1 for a route with a gateway.
func gateways(m message) int {
	if m.get(unix.RTA_GATEWAY) != nil || m.get(unix.RTA_VIA) != nil || m.get(unix.RTA_MULTIPATH) != nil {
		return 1
	}
	return 0
}

// eachNexthop calls f for each struct rtnexthop, with its attributes. f may
// change it.
func eachNexthop(b []byte, f func(hop []byte)) error {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			return errMessage
		}
		f(b[:length])
		b = b[min(align(length), len(b)):]
	}
	return nil
}

func nexthopIndex(hop []byte) int { return int(binary.NativeEndian.Uint32(hop[4:])) }

// routeFor returns the message that moves a route from a device to another one, age
// seconds after it was read. It reports false if the route has expired.
func routeFor(m message, from, to int, age uint32) (message, bool) {
	m = m.clone()
	flags := binary.NativeEndian.Uint32(m.header[rtmFlags:])
	binary.NativeEndian.PutUint32(m.header[rtmFlags:], flags&settableFlags)
	if out := m.get(unix.RTA_OIF); len(out) == 4 && int(binary.NativeEndian.Uint32(out)) == from {
		binary.NativeEndian.PutUint32(out, uint32(to))
	}
	// The message was valid when it was read.
	_ = eachNexthop(m.get(unix.RTA_MULTIPATH), func(hop []byte) {
		hop[2] &= settableFlags
		if nexthopIndex(hop) == from {
			binary.NativeEndian.PutUint32(hop[4:], uint32(to))
		}
	})
	left, limited := expiry(m)
	m.remove(unix.RTA_CACHEINFO, unix.RTA_EXPIRES)
	if limited {
		if left <= age {
			return m, false
		}
		m.setNumber(unix.RTA_EXPIRES, left-age)
	}
	return m, true
}

// expiry returns the rest of an IPv6 route's lifetime in seconds: as a request sets it,
// or as the kernel reports it (the third number of struct rta_cacheinfo), rounded up. It
// reports false if the route does not expire.
func expiry(m message) (seconds uint32, limited bool) {
	if m.get(unix.RTA_EXPIRES) != nil {
		return m.number(unix.RTA_EXPIRES), true
	}
	c := m.get(unix.RTA_CACHEINFO)
	if m.family() != unix.AF_INET6 || len(c) < 12 {
		return 0, false
	}
	ticks := int32(binary.NativeEndian.Uint32(c[8:]))
	return uint32(max(ticks, 0)+clockTicks-1) / clockTicks, ticks != 0
}

// isKernels reports whether the kernel made a route together with an address.
func isKernels(m message) bool { return m.header[rtmProtocol] == unix.RTPROT_KERNEL }

// routeKey identifies a route of a device, without its lifetime.
func routeKey(m message) string {
	m, _ = routeFor(m, 0, 0, 0)
	m.remove(unix.RTA_EXPIRES)
	return m.key()
}

// addRoutes adds routes, after existing ones with the same destination and metric. A
// route whose gateway is reached through another one is added after that.
func addRoutes(k kernel, list []message) error {
	for len(list) > 0 {
		var failed []message
		var errs []error
		for _, m := range list {
			if err := add(k, m, unix.NLM_F_APPEND); err != nil {
				failed = append(failed, m)
				errs = append(errs, fmt.Errorf("add route %q: %w", routeWords(m, nil), err))
			}
		}
		if len(failed) == len(list) {
			return errors.Join(errs...)
		}
		list = failed
	}
	return nil
}

// dropRoutes removes routes, latest first, so that the remaining ones keep their order.
func dropRoutes(k kernel, list []message) error {
	for _, m := range slices.Backward(list) {
		if err := drop(k, m); err != nil {
			return fmt.Errorf("remove route %q: %w", routeWords(m, nil), err)
		}
	}
	return nil
}
