package datapath

import (
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/stack"
	"fragwall/wire"
)

// Config returns the configuration of the wire. The caller adds the lanes and the observer.
func Config(c *rules.Config) wire.Config {
	return wire.Config{
		Sides:     [verdict.Sides]wire.SideConfig{verdict.Inside: {MTU: mtu(c.Inside)}, verdict.Outside: {MTU: mtu(c.Outside)}},
		Policy:    c.Policy,
		Mode:      c.Fragments.Mode,
		Emit:      c.Fragments.Emit,
		Fragments: Limits(&c.Fragments),
	}
}

// mtu returns the MTU of a side in bytes. If the configuration does not set it and there is no
// device, as in a replay, it is [rules.StandardMTU].
func mtu(i rules.Interface) int {
	if i.MTU == 0 {
		return rules.StandardMTU
	}
	return i.MTU
}

// Limits returns the limits of incomplete datagrams.
func Limits(f *rules.Fragments) stack.Options {
	return stack.Options{
		TimeoutIPv4:  f.TimeoutIPv4,
		TimeoutIPv6:  f.TimeoutIPv6,
		Memory:       f.Memory,
		MaxFragments: f.MaxFragments,
		MaxDatagrams: f.MaxDatagrams,
	}
}
