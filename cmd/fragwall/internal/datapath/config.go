package datapath

import (
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/stack"
	"fragwall/wire"
)

// Config returns what the wire is to do by a configuration. Its lanes and its
// observer are the caller's to add.
func Config(c *rules.Config) wire.Config {
	return wire.Config{
		Sides:     [verdict.Sides]wire.SideConfig{verdict.Inside: {MTU: mtu(c.Inside)}, verdict.Outside: {MTU: mtu(c.Outside)}},
		Policy:    c.Policy,
		Mode:      c.Fragments.Mode,
		Emit:      c.Fragments.Emit,
		Fragments: Limits(&c.Fragments),
	}
}

// mtu returns the MTU of a side in bytes; without devices, as in a replay, the
// standard one stands for a NIC's own.
func mtu(i rules.Interface) int {
	if i.MTU == 0 {
		return rules.StandardMTU
	}
	return i.MTU
}

// Limits returns the limits of fragments in waiting.
func Limits(f *rules.Fragments) stack.Options {
	return stack.Options{
		TimeoutIPv4:  f.TimeoutIPv4,
		TimeoutIPv6:  f.TimeoutIPv6,
		Memory:       f.Memory,
		MaxFragments: f.MaxFragments,
		MaxDatagrams: f.MaxDatagrams,
	}
}
