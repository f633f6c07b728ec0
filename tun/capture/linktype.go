package capture

import (
	"fmt"

	"github.com/gopacket/gopacket/layers"
)

// linkTypes names the link types that captures are likely to have, as
// tcpdump -L and libpcap's registry do (https://www.tcpdump.org/linktypes.html).
var linkTypes = map[layers.LinkType]string{
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

// checkLinkType refuses what is not Ethernet, by name.
func checkLinkType(t layers.LinkType) error {
	if t == layers.LinkTypeEthernet {
		return nil
	}
	if name := linkTypes[t]; name != "" {
		return fmt.Errorf("link type %s (%d): %w", name, t, ErrLinkType)
	}
	return fmt.Errorf("link type %d: %w", t, ErrLinkType)
}
