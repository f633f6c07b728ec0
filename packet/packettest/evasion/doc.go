// Package evasion is a catalogue of what is done to fragments: by attackers, so that a
// filter and the host behind it see different datagrams, and by honest hosts and
// networks, whose datagrams a filter must deliver.
//
// A [Case] is a list of frames with the side and the time at which each arrives. Every
// test uses the same policy, [Policy]: it allows datagrams to port 53 and denies
// datagrams to port 22. A [Host] models a receiver behind the filter, which reassembles
// fragments as old or new systems do.
package evasion
