package capture

import "fmt"

// linkType is a link type in the registry of the Tcpdump Group
// (https://www.tcpdump.org/linktypes.html).
type linkType uint32

const ethernet linkType = 1

// linkTypes has the names of common link types, as tcpdump -L prints them.
var linkTypes = map[linkType]string{
	0:   "NULL",
	9:   "PPP",
	12:  "RAW",
	101: "RAW",
	105: "IEEE802_11",
	108: "LOOP",
	113: "LINUX_SLL",
	127: "IEEE802_11_RADIO",
	192: "PPI",
	195: "IEEE802_15_4",
	220: "USB_LINUX_MMAPPED",
	228: "IPV4",
	229: "IPV6",
	239: "NFLOG",
	253: "NETLINK",
	276: "LINUX_SLL2",
}

// checkLinkType refuses everything but Ethernet, with the name of the link type.
func checkLinkType(t linkType) error {
	if t == ethernet {
		return nil
	}
	if name := linkTypes[t]; name != "" {
		return fmt.Errorf("link type %s (%d): %w", name, t, ErrLinkType)
	}
	return fmt.Errorf("link type %d: %w", t, ErrLinkType)
}
