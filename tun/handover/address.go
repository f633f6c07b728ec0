package handover

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// forever is a lifetime without end (INFINITY_LIFE_TIME).
const forever = 0xffffffff

// readAddresses returns the addresses of a device, in an order in which adding them gives
// the same list.
func readAddresses(k kernel, index int) ([]message, error) {
	all, err := k.dump(unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var ipv4, ipv6 []message
	for _, m := range all {
		if addressIndex(m) != index {
			continue
		}
		switch m.family() {
		case unix.AF_INET:
			ipv4 = append(ipv4, m)
		case unix.AF_INET6:
			ipv6 = append(ipv6, m)
		}
	}
	// The kernel puts a new IPv6 address before the others of its scope.
	slices.Reverse(ipv6)
	return append(ipv4, ipv6...), nil
}

func addressIndex(m message) int { return int(binary.NativeEndian.Uint32(m.header[4:])) }

func addressFlags(m message) uint32 {
	if m.get(unix.IFA_FLAGS) != nil {
		return m.number(unix.IFA_FLAGS)
	}
	return uint32(m.header[2])
}

// addressFor returns the message that gives an address to a device, age seconds after it
// was read. It reports false if the address has expired.
func addressFor(m message, index int, age uint32) (message, bool) {
	from := addressIndex(m)
	m = m.clone()
	binary.NativeEndian.PutUint32(m.header[4:], uint32(index))
	if index != from {
		m.remove(unix.IFA_LABEL) // the kernel derives it from the device's name
	}
	if c := m.get(unix.IFA_CACHEINFO); len(c) >= 8 {
		preferred, valid := lifetime(c, age), lifetime(c[4:], age)
		if valid == 0 {
			return m, false
		}
		binary.NativeEndian.PutUint32(c, preferred)
		binary.NativeEndian.PutUint32(c[4:], valid)
	}
	return m, true
}

// lifetime returns the rest of a lifetime, in seconds.
func lifetime(b []byte, age uint32) uint32 {
	n := binary.NativeEndian.Uint32(b)
	if n == forever {
		return n
	}
	return n - min(n, age)
}

// addAddress gives an address to a device, usable at once: duplicates were detected
// before. An address that was found to be a duplicate, or whose detection is not
// finished, is detected again. An address that the device has stays as it is with
// NLM_F_EXCL, and gets the new lifetimes and metric with NLM_F_REPLACE.
func addAddress(k kernel, m message, flag int) error {
	flags := addressFlags(m)
	if m.family() == unix.AF_INET {
		return add(k, m, flag)
	}
	if flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_NODAD) != 0 {
		return add(k, m, flag)
	}
	now := m.clone()
	now.setNumber(unix.IFA_FLAGS, flags|unix.IFA_F_NODAD)
	if err := add(k, now, flag); err != nil {
		return err
	}
	return k.send(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, m) // clears the flag again
}

// dropAddress takes an address from a device. The kernel identifies it also by its prefix
// length.
func dropAddress(k kernel, m message) error {
	m = m.clone()
	m.remove(unix.IFA_CACHEINFO, unix.IFA_LABEL)
	return drop(k, m)
}

// dropTemporary takes from a device the temporary addresses that are not among those
// wanted. The kernel makes one (RFC 8981) as soon as there is an address that requests
// it.
func dropTemporary(k kernel, index int, wanted []message) error {
	known := make(map[string]bool)
	for _, m := range wanted {
		known[addressKey(m)] = true
	}
	list, err := readAddresses(k, index)
	if err != nil {
		return err
	}
	for _, m := range list {
		if !isTemporary(m) || known[addressKey(m)] {
			continue
		}
		if err := dropAddress(k, m); err != nil {
			return fmt.Errorf("remove temporary address %q: %w", prefixText(m), err)
		}
	}
	return nil
}

// isTemporary reports whether the kernel made a temporary address (RFC 8981). In IPv4 the
// same bit means a secondary address.
func isTemporary(m message) bool {
	return m.family() == unix.AF_INET6 && addressFlags(m)&unix.IFA_F_TEMPORARY != 0
}

// addressKey identifies an address of a device.
func addressKey(m message) string {
	return fmt.Sprint(m.family(), m.header[1], m.get(unix.IFA_LOCAL), m.get(unix.IFA_ADDRESS))
}
