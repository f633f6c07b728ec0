// Package datapath derives the configuration of the wire from the user's configuration, both for
// the running box and for replay.
//
// The package imports rules, wire, stack and packet/verdict. It accesses no devices.
package datapath
