package handover

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// forever is a lifetime without end (INFINITY_LIFE_TIME).
const forever = 0xffffffff

// readAddresses returns a device's, in an order in which adding them makes the
// same list.
func readAddresses(index int) ([]message, error) {
	all, err := dump(unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg))
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

// addressFor returns what gives an address to a device, age seconds after it
// was read. It reports false if the address's lifetime is over.
func addressFor(m message, index int, age uint32) (message, bool) {
	from := addressIndex(m)
	m = m.clone()
	binary.NativeEndian.PutUint32(m.header[4:], uint32(index))
	if index != from {
		m.remove(unix.IFA_LABEL) // the kernel makes it from the device's name
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

// lifetime returns what is left of one, in seconds.
func lifetime(b []byte, age uint32) uint32 {
	n := binary.NativeEndian.Uint32(b)
	if n == forever {
		return n
	}
	return n - min(n, age)
}

// addAddress gives an address to a device, to be used at once: that nobody
// else has it was found out before. One that was found to be a duplicate, or
// for which that is still open, is tried (again).
func addAddress(m message) error {
	flags := addressFlags(m)
	if m.family() == unix.AF_INET {
		return add(m, unix.NLM_F_EXCL)
	}
	if flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_NODAD) != 0 {
		return add(m, unix.NLM_F_EXCL)
	}
	now := m.clone()
	now.setNumber(unix.IFA_FLAGS, flags|unix.IFA_F_NODAD)
	if err := add(now, unix.NLM_F_EXCL); err != nil {
		return err
	}
	return send(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, m) // takes the flag off again
}

// dropAddress takes an address from a device. The kernel takes one by its
// subnet's length too.
func dropAddress(m message) error {
	m = m.clone()
	m.remove(unix.IFA_CACHEINFO, unix.IFA_LABEL)
	return drop(m)
}

// dropTemporary takes from a device the temporary addresses that are not among
// those wanted: the kernel makes one (RFC 8981) as soon as there is an address
// that has such.
func dropTemporary(index int, wanted []message) error {
	known := make(map[string]bool)
	for _, m := range wanted {
		known[addressKey(m)] = true
	}
	list, err := readAddresses(index)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.family() != unix.AF_INET6 || addressFlags(m)&unix.IFA_F_TEMPORARY == 0 || known[addressKey(m)] {
			continue
		}
		if err := dropAddress(m); err != nil {
			return fmt.Errorf("remove temporary address %q: %w", prefixText(m), err)
		}
	}
	return nil
}

// addressKey tells addresses of a device apart.
func addressKey(m message) string {
	return fmt.Sprint(m.family(), m.header[1], m.get(unix.IFA_LOCAL), m.get(unix.IFA_ADDRESS))
}

// freshenAddresses returns what addresses are, age seconds after they were
// read: where others, just read, have the same one, it has lived on there.
func freshenAddresses(list, others []message, age uint32) (fresh []message) {
	lifetimes := make(map[string][]byte, len(others))
	for _, m := range others {
		lifetimes[addressKey(m)] = m.get(unix.IFA_CACHEINFO)
	}
	for _, m := range list {
		left := age
		if c := lifetimes[addressKey(m)]; c != nil {
			m = m.clone()
			m.set(unix.IFA_CACHEINFO, c)
			left = 0
		}
		if m, alive := addressFor(m, addressIndex(m), left); alive {
			fresh = append(fresh, m)
		}
	}
	return fresh
}
