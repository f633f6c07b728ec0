package filter

import (
	"fmt"

	"fragwall/packet"
)

// Action is what becomes of a datagram. The zero value drops it.
type Action uint8

// The actions.
const (
	Drop Action = iota
	Accept
)

// String returns the action as the configuration spells it.
func (a Action) String() string {
	if a == Accept {
		return "accept"
	}
	return "drop"
}

// Policy is a compiled policy: the rules in order, and what decides where no
// rule can. The zero Policy drops everything.
type Policy struct {
	Rules   []Rule
	Default Action // of IP datagrams that no rule matches
	// ARP and NeighborDiscovery (RFC 4861, types 133 to 137, unfragmented and
	// with hop limit 255) are decided by these before any rule: without them
	// hosts don't find each other.
	ARP               Action
	NeighborDiscovery Action
	NonIP             Action // of every other EtherType
}

// Rule matches a datagram if each of its fields does. A nil field matches
// anything.
type Rule struct {
	Name   string
	Line   int // in the configuration file
	Action Action

	From       *packet.Side
	Protocols  Set[uint8]
	Src, Dst   AddrSet
	SrcPorts   Set[uint16]
	DstPorts   Set[uint16]
	ICMPTypes  Set[uint8]
	ICMPCodes  Set[uint8]
	VLANs      *VLANs
	Fragmented *bool
}

// VLANs matches a frame by its outermost VLAN tag.
type VLANs struct {
	// Untagged matches frames without a tag, and those with VLAN identifier 0,
	// which carry a priority only (IEEE 802.1Q §6.9).
	Untagged bool
	IDs      Set[uint16] // of the tagged ones; here too, nil stands for all
}

// Verdict is what a policy decides of a datagram. The zero Verdict drops.
type Verdict struct {
	Action Action
	Reason packet.Reason // of a drop; [packet.Passed] where Action is [Accept]
	Rule   *Rule         // that decided; nil where none did
}

// String tells the verdict for people: the action and what decided it.
func (v Verdict) String() string {
	switch {
	case v.Rule != nil:
		return fmt.Sprintf("%s by rule %q", v.Action, v.Rule.Name)
	case v.Action == Accept:
		return "accept by policy"
	default:
		return fmt.Sprintf("drop: %s", v.Reason)
	}
}
