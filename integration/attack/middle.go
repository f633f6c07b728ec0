package main

import (
	"fmt"

	"fragwall/integration/middle"
	"fragwall/tun/lab"
)

// column is a kind of middle.
type column struct {
	name string
	// up sets the middle up. If up is nil, a cable connects the hosts.
	up func(n *lab.Network) (running, error)
}

// running is a middle that is set up.
type running interface {
	// Memory returns the middle's memory in bytes.
	Memory() int64
	// CPU returns the middle's CPU time in seconds, or false if the kernel accounts its work to
	// other processes.
	CPU() (float64, bool)
	// Lost returns the number of frames that were dropped before they reached the middle.
	Lost() uint64
	// Down removes the middle, and returns its output.
	Down() (string, error)
}

// The columns, with their names for -middles.
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

// program is the path of the fragwall binary under test.
var program string

// boxConfig is a configuration with the same policy as bridgeRules.
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

// newBox starts fragwall in a fragment mode.
func newBox(n *lab.Network, mode string) (running, error) {
	return middle.NewBox(n, program, fmt.Sprintf(boxConfig, mode, datagramPort, echoPort, harmlessPort, streamPort))
}

// bridgeRules returns the nftables rules of the conntrack bridge, the same policy as boxConfig.
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
