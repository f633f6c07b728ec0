// Package trunk gives hosts interfaces with VLAN tags.
//
// It imports tun/lab, for the hosts, and packet.
package trunk
