// Package trunk gives the hosts of a lab interfaces in VLANs.
//
// Of fragwall's packages, it imports tun/lab and packet.
package trunk
