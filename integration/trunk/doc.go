// Package trunk gives hosts interfaces behind VLAN tags.
//
// It imports tun/lab, whose hosts they are, and packet.
package trunk
