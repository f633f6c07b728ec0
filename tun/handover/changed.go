package handover

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Groups are the groups of rtnetlink(7) whose messages [Changed] reads.
var Groups = []uint{
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEIGH,
}

// Changed returns the indices of the devices for which a message of the kernel reports a
// change of something that a [State] holds. Of neighbours, only permanent ones count: the
// others change with traffic.
func Changed(n syscall.NetlinkMessage) (devices []int) {
	kind := n.Header.Type &^ 3 // RTM_NEW..., the first of each four
	if n.Header.Type != kind && n.Header.Type != kind+1 {
		return nil
	}
	m, err := parseMessage(kind, n.Data)
	if err != nil {
		return nil
	}
	switch kind {
	case unix.RTM_NEWADDR:
		return []int{addressIndex(m)}
	case unix.RTM_NEWNEIGH:
		if isLearnt(m) || !isKnown(m) {
			return nil
		}
		return []int{neighborIndex(m)}
	case unix.RTM_NEWROUTE:
		if isByproduct(m) {
			return nil
		}
		if out := m.number(unix.RTA_OIF); out != 0 {
			return []int{int(out)}
		}
		_ = eachNexthop(m.get(unix.RTA_MULTIPATH), func(hop []byte) { devices = append(devices, nexthopIndex(hop)) })
	}
	return devices
}
