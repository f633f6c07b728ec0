package filter

import (
	"fmt"
	"time"

	"fragwall/packet/verdict"
)

// Policy is the source of a [Table]: the rules in order, and the actions if no rule
// decides. The zero Policy drops everything.
type Policy struct {
	Rules   []Rule
	Default verdict.Action // for IP datagrams that no rule matches
	// ARP and NeighborDiscovery (RFC 4861, types 133 to 137, unfragmented and with hop
	// limit 255) decide before any rule, because hosts cannot find each other without
	// them.
	ARP               verdict.Action
	NeighborDiscovery verdict.Action
	NonIP             verdict.Action // for all other frames
	// SourceRoute decides on IP packets with a source route, including fragments. If it
	// accepts, the packets are judged as if they had none.
	SourceRoute verdict.Action
	// Stateful lets datagrams of accepted flows pass without a rule.
	Stateful bool
	// AnyVLANs identifies flows without their VLANs. Otherwise both directions of a flow
	// have the same VLANs ([packet.VLANs]).
	AnyVLANs bool
	// LooseTCP accepts segments of connections whose beginning fragwall did not see.
	LooseTCP bool
	// Secret is the key of the hash in the flow table. nil means a random key, which is
	// required if untrusted hosts may send.
	Secret *[2]uint64
}

// Rule matches a datagram if all of its fields match. A nil field matches anything. A
// rule with ports and ICMP fields matches nothing.
type Rule struct {
	Name   string
	Line   int // in the configuration file
	Action verdict.Action

	From       *verdict.Side
	Protocols  Set[uint8]
	Src, Dst   AddrSet
	SrcPorts   Set[uint16]
	DstPorts   Set[uint16]
	ICMPTypes  Set[uint8]
	ICMPCodes  Set[uint8]
	VLANs      *VLANs
	Fragmented *bool

	Log   bool // log an event for each match
	Limit Rate // matches only up to this rate
}

// VLANs matches a frame by its outermost VLAN, see [packet.VLANs].
type VLANs struct {
	Untagged bool        // matches frames in no VLAN, including those with only priority tags
	IDs      Set[uint16] // of frames in a VLAN; nil means all
}

// Rate is a number of datagrams per time. The zero Rate is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// String returns the rate in the syntax of the configuration.
func (r Rate) String() string {
	for _, unit := range []struct {
		per  time.Duration
		name string
	}{{time.Second, "s"}, {time.Minute, "m"}, {time.Hour, "h"}} {
		if r.Per == unit.per {
			return fmt.Sprintf("%d/%s", r.Count, unit.name)
		}
	}
	return fmt.Sprintf("%d/%s", r.Count, r.Per)
}
