// Package evasion is a catalogue of what is done to fragments: by attackers,
// so that a filter and the host behind it see different datagrams, and by
// honest hosts and networks, which a filter must bear.
//
// A [Case] is a list of frames with the side and the time at which they come.
// Its frames mean the same to every test that sends them, whatever it sends
// them through: under [Policy], what is destined to port 53 is allowed and
// what is destined to port 22 is denied. A [Host] is what may stand behind
// the filter: it puts together what it gets as old and new systems do.
package evasion
