package filter

import (
	"fmt"
	"time"

	"fragwall/packet/verdict"
)

// Policy is what [Compile] makes a [Table] of: the rules in order, and what
// decides where no rule can. The zero Policy drops everything.
type Policy struct {
	Rules   []Rule
	Default verdict.Action // of IP datagrams that no rule matches
	// ARP and NeighborDiscovery (RFC 4861, types 133 to 137, unfragmented and
	// with hop limit 255) are decided by these before any rule: without them
	// hosts don't find each other.
	ARP               verdict.Action
	NeighborDiscovery verdict.Action
	NonIP             verdict.Action // of every other frame
	// SourceRoute is of IP packets with a source route, fragments included; those
	// that it accepts are judged as if they had none.
	SourceRoute verdict.Action
	// Stateful lets datagrams of accepted flows pass without a rule.
	Stateful bool
	// AnyVLANs makes a flow the same whatever VLANs its datagrams are in; without
	// it, both directions of a flow are in the same ([packet.VLANs]).
	AnyVLANs bool
	// LooseTCP lets segments of connections pass that fragwall did not see from
	// their beginning.
	LooseTCP bool
	// Secret is the key of the hash that flows are found by; nil stands for a
	// random one, which it has to be where anybody may send.
	Secret *[2]uint64
}

// Rule matches a datagram if each of its fields does. A nil field matches
// anything. A rule with ports and ICMP fields matches nothing.
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

	Log   bool // an event for each match
	Limit Rate // matches only up to this rate
}

// VLANs matches a frame by its outermost VLAN, see [packet.VLANs].
type VLANs struct {
	Untagged bool        // matches frames in no VLAN, those with priority tags alone included
	IDs      Set[uint16] // of those in one; here too, nil stands for all
}

// Rate is so many datagrams in a time. The zero Rate is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// String returns the rate as the configuration spells it.
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
