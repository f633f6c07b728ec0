// Package datapath derives the configuration of the wire from that of the user,
// for the running box and for replay alike.
//
// The package imports rules, wire, stack and packet/verdict. It knows no devices.
package datapath
