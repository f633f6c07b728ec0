package filter_test

import (
	"fmt"
	"net/netip"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// query returns a policy that lets the inside ask a resolver.
func query(stateful bool) *filter.Policy {
	inside := verdict.Inside
	return &filter.Policy{
		Stateful: stateful,
		Rules: []filter.Rule{{
			Name:      "queries",
			Action:    verdict.Accept,
			From:      &inside,
			Protocols: filter.NewSet(filter.Range[uint8]{Lo: packet.ProtocolUDP, Hi: packet.ProtocolUDP}),
			Dst:       filter.NewAddrSet(filter.PrefixRange(netip.MustParsePrefix("192.0.2.0/24"))),
			DstPorts:  filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53}, filter.Range[uint16]{Lo: 853, Hi: 853}),
		}},
	}
}

// received decodes a UDP datagram as it arrives on a side.
func received(from verdict.Side, src, dst string) *packet.View {
	frame := packettest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), nil).Frame()
	p := &packet.Parsed{}
	if reason := p.Decode(frame); reason != verdict.Passed {
		panic(reason)
	}
	return &packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}
}

// clock returns the time for stateful policies and limits.
func clock() time.Duration { return 0 }

// This policy has no state. The default of the zero Policy is to drop.
func Example() {
	table := filter.Compile(query(false), nil)
	for _, d := range []*packet.View{
		received(verdict.Inside, "10.0.0.1:40000", "192.0.2.53:53"),
		received(verdict.Inside, "10.0.0.1:40000", "192.0.2.53:80"),
		received(verdict.Outside, "192.0.2.53:53", "10.0.0.1:40000"),
	} {
		v := table.Judge(d, clock)
		if rule := table.Rule(v.Rule); rule != nil {
			fmt.Printf("%s by rule %q\n", v.Action, rule.Name)
			continue
		}
		fmt.Println(v.Action, v.Reason)
	}
	fmt.Println("the rule decided on", table.Count(0).Datagrams, "datagram")
	// Output:
	// accept by rule "queries"
	// drop policy_default
	// drop policy_default
	// the rule decided on 1 datagram
}

// With a stateful policy, replies to accepted datagrams pass without a rule.
func Example_stateful() {
	table := filter.Compile(query(true), nil)
	reply := received(verdict.Outside, "192.0.2.53:53", "10.0.0.1:40000")
	fmt.Println(table.Judge(reply, clock).Action)
	fmt.Println(table.Judge(received(verdict.Inside, "10.0.0.1:40000", "192.0.2.53:53"), clock).Action)
	fmt.Println(table.Judge(reply, clock).Action)
	fmt.Println("flows:", table.Flows())
	// Output:
	// drop
	// accept
	// accept
	// flows: 1
}

// A reload compiles the new policy with the old table. Rules with the same name keep their
// counters, and flows that the new policy accepts continue.
func ExampleCompile_reload() {
	table := filter.Compile(query(true), nil)
	table.Judge(received(verdict.Inside, "10.0.0.1:40000", "192.0.2.53:53"), clock)

	policy := query(true)
	policy.Default = verdict.Reject
	table = filter.Compile(policy, table)
	fmt.Println(table.Count(0).Datagrams, table.Flows())
	fmt.Println(table.Judge(received(verdict.Outside, "192.0.2.53:53", "10.0.0.1:40000"), clock).Action)
	// Output:
	// 1 1
	// accept
}
