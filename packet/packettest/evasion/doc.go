// Package evasion is a catalogue of fragment traffic. Attackers send fragments so that a filter
// and the host behind it see different datagrams. Honest hosts and networks also reorder,
// duplicate and tag fragments, and a filter must deliver their datagrams.
//
// A [Case] is a list of frames with the side and the time at which each arrives. All tests use
// the same policy, [Policy]: it accepts datagrams to port 53 and denies datagrams to port 22. A
// [Host] models a receiver behind the filter, which reassembles fragments as old or new systems
// do.
package evasion
