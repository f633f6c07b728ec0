package main

import (
	"fmt"

	"fragwall/integration/middle"
	"fragwall/tun/lab"
)

// column is what stands between the hosts.
type column struct {
	name string
	// up puts it there; nil has a cable join the hosts.
	up func(n *lab.Network) (running, error)
}

// running is a middle under way.
type running interface {
	// Memory returns the bytes that it takes now.
	Memory() int64
	// CPU returns the seconds that it took so far; false where the kernel does
	// its work in the name of others.
	CPU() (float64, bool)
	// Lost returns the frames that did not get as far as being looked at.
	Lost() uint64
	// Down takes it away, and returns what it says of its work.
	Down() (string, error)
}

// The columns, by the names that -middles knows them by.
var (
	cable          = column{"cable", nil}
	plainBridge    = column{"bridge", func(n *lab.Network) (running, error) { return middle.NewBridge(n, "") }}
	conntrack      = column{"conntrack", func(n *lab.Network) (running, error) { return middle.NewBridge(n, bridgeRules()) }}
	reassembleBox  = column{"reassemble", func(n *lab.Network) (running, error) { return newBox(n, "reassemble") }}
	validateBox    = column{"validate", func(n *lab.Network) (running, error) { return newBox(n, "validate") }}
	allColumns     = []column{cable, conntrack, reassembleBox, validateBox}
	protectColumns = []column{plainBridge, conntrack, reassembleBox}
	idleColumns    = []column{plainBridge, conntrack, reassembleBox}
)

// program is the fragwall under attack.
var program string

// boxConfig is the policy of bridgeRules.
const boxConfig = middle.Sides + `
[fragments]
mode = %q
[policy]
default = "drop"
stateful = true
[[rule]]
name = "datagrams"
action = "accept"
protocol = "udp"
dst_port = [%d, %d, %d]
[[rule]]
name = "stream"
action = "accept"
protocol = "tcp"
dst_port = %d
`

// newBox starts fragwall in a mode.
func newBox(n *lab.Network, mode string) (running, error) {
	return middle.NewBox(n, program, fmt.Sprintf(boxConfig, mode, datagramPort, echoPort, harmlessPort, streamPort))
}

// bridgeRules returns the policy of the conntrack bridge, that of boxConfig.
func bridgeRules() string {
	return fmt.Sprintf(`
table inet attack {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		ct state invalid drop
		udp dport { %d, %d, %d } accept
		tcp dport %d accept
		meta l4proto ipv6-icmp accept
	}
}
`, datagramPort, echoPort, harmlessPort, streamPort)
}
