package verdict

// Reason says why a frame was dropped. The list is closed: every received frame is
// forwarded, waits for the rest of its datagram, or is dropped for exactly one of these
// reasons.
type Reason uint8

// Passed is the zero Reason: nothing was found against the frame.
const Passed Reason = 0

// The frame or its packet is malformed, whatever the policy.
const (
	// EthernetTruncated: shorter than an Ethernet header and its VLAN tags.
	EthernetTruncated Reason = 1
	// VLANTooDeep: three or more VLAN tags.
	VLANTooDeep Reason = 2
	// LLCHeader: an LLC header of IP or ARP in a frame whose 802.3 length does not hold
	// it or exceeds the frame, or such a header inside LLC (RFC 1042).
	LLCHeader Reason = 3
	// IPv4Header: truncated, of another version, or with an IHL below 5 (RFC 791 §3.1).
	IPv4Header Reason = 4
	// IPv4Length: the total length is less than the header or more than the frame.
	IPv4Length Reason = 5
	// IPv4Checksum: the header checksum is wrong.
	IPv4Checksum Reason = 6
	// IPv4Options: an option that does not fit the header (RFC 791 §3.1).
	IPv4Options Reason = 7
	// IPv6Header: truncated or of another version (RFC 8200 §3).
	IPv6Header Reason = 8
	// IPv6Length: the payload length is more than the frame holds.
	IPv6Length Reason = 9
	// IPv6Chain: an extension header does not fit the packet, or a hop-by-hop header is
	// not the first (RFC 8200 §4.1).
	IPv6Chain Reason = 10
	// IPv6ChainTooLong: more extension headers than packet.MaxExtensionHeaders.
	IPv6ChainTooLong Reason = 11
	// ExceedsMTU: the packet is longer than the egress side's MTU.
	ExceedsMTU Reason = 12
	// OffloadHeader: the virtio-net header, which says what is left to the NIC,
	// contradicts the packet.
	OffloadHeader Reason = 13
)

// The fragment itself is malformed.
const (
	// FragmentEmpty: a fragment without payload.
	FragmentEmpty Reason = 14
	// FragmentUnaligned: the M flag is set, and the length is not a multiple of 8 (RFC
	// 791 §3.2, RFC 8200 §4.5).
	FragmentUnaligned Reason = 15
	// FragmentTooLong: offset and length, including headers, exceed 65,535 bytes.
	FragmentTooLong Reason = 16
	// FragmentTwoHeaders: a second IPv6 fragment header.
	FragmentTwoHeaders Reason = 17
	// FragmentIncompleteChain: an IPv6 first fragment that lacks a part of its
	// header chain, the upper-layer header included (RFC 7112 §5).
	FragmentIncompleteChain Reason = 18
	// FragmentedNeighborDiscovery: neighbour discovery with a fragment header (RFC 6980
	// §5).
	FragmentedNeighborDiscovery Reason = 19
	// FragmentTinyFirst: a first fragment without its whole transport header, in
	// a mode that judges it alone (RFC 1858 §3, RFC 3128).
	FragmentTinyFirst Reason = 20
)

// The fragment conflicts with others of its datagram, or its datagram did not become
// complete.
const (
	// FragmentDuplicate: the same range with the same bytes had arrived before.
	FragmentDuplicate Reason = 21
	// FragmentConflict: the same range with other bytes had arrived before.
	FragmentConflict Reason = 22
	// FragmentOverlap: it covers a part of another fragment's range
	// (RFC 5722 §3).
	FragmentOverlap Reason = 23
	// FragmentConflictingEnd: two fragments disagree on where the datagram ends.
	FragmentConflictingEnd Reason = 24
	// FragmentBeyondEnd: it has data beyond the end that the last fragment set.
	FragmentBeyondEnd Reason = 25
	// FragmentPoisoned: its datagram was discarded before. Nothing more of it passes
	// until its deadline.
	FragmentPoisoned Reason = 26
	// FragmentTooMany: its datagram has more fragments than max_fragments.
	FragmentTooMany Reason = 27
	// FragmentTimeout: the datagram was incomplete at its deadline.
	FragmentTimeout Reason = 28
	// FragmentEvicted: its datagram was evicted from a full table.
	FragmentEvicted Reason = 29
	// FragmentShed: frames arrived faster than fragwall could process them, and its
	// datagram was one that is shed then: its source is unknown, or has too little credit
	// for so many fragments, or the limit on new datagrams was reached.
	FragmentShed Reason = 30
	// FragmentSuperseded: its datagram was incomplete when the sender reused the
	// identification, after so many others that it must mean another datagram.
	FragmentSuperseded Reason = 31
	// FragmentDisagreement: the table and gVisor did not agree on whether the datagram
	// was complete.
	FragmentDisagreement Reason = 32
	// FragmentECN: of a datagram that was to be rebuilt, some fragments are ECN-capable
	// and others are not (RFC 3168 §5.3).
	FragmentECN Reason = 33
	// FragmentMode: the fragment mode does not let it pass.
	FragmentMode Reason = 34
	// FragmentShutdown: it was waiting when fragwall stopped.
	FragmentShutdown Reason = 35
)

// The policy decided.
const (
	// PolicyRule: a rule's action.
	PolicyRule Reason = 36
	// PolicyDefault: no rule matched.
	PolicyDefault Reason = 37
	// PolicyARP: by policy.arp.
	PolicyARP Reason = 38
	// PolicyNeighborDiscovery: by policy.neighbor_discovery.
	PolicyNeighborDiscovery Reason = 39
	// PolicyNonIP: by policy.non_ip.
	PolicyNonIP Reason = 40
	// PolicySourceRoute: by policy.source_route.
	PolicySourceRoute Reason = 41
	// TransportTruncated: the datagram is too short for a field of the transport header
	// that the deciding rule needs.
	TransportTruncated Reason = 42
	// FlowInvalid: it has the addresses and ports of a known flow, but no host would send
	// it in the flow's state, and no rule accepts it.
	FlowInvalid Reason = 43
	// FlowDenied: a reload denied its flow, and the originator has sent nothing since
	// then that the policy accepts.
	FlowDenied Reason = 44
)

// Other reasons.
const (
	// EgressFailed: the egress device refused the frame.
	EgressFailed Reason = 45
	// SnapLength: a capture has only the beginning of the frame, too little to decide as
	// on the wire.
	SnapLength Reason = 46
)

// Reasons is the number of values, including [Passed]; a Reason indexes an array of that
// length.
const Reasons = int(SnapLength) + 1

var reasonNames = [Reasons]string{
	Passed:                      "passed",
	EthernetTruncated:           "ethernet_truncated",
	VLANTooDeep:                 "vlan_too_deep",
	LLCHeader:                   "llc_header",
	IPv4Header:                  "ipv4_header",
	IPv4Length:                  "ipv4_length",
	IPv4Checksum:                "ipv4_checksum",
	IPv4Options:                 "ipv4_options",
	IPv6Header:                  "ipv6_header",
	IPv6Length:                  "ipv6_length",
	IPv6Chain:                   "ipv6_chain",
	IPv6ChainTooLong:            "ipv6_chain_too_long",
	ExceedsMTU:                  "exceeds_mtu",
	OffloadHeader:               "offload_header",
	FragmentEmpty:               "fragment_empty",
	FragmentUnaligned:           "fragment_unaligned",
	FragmentTooLong:             "fragment_too_long",
	FragmentTwoHeaders:          "fragment_two_headers",
	FragmentIncompleteChain:     "fragment_incomplete_chain",
	FragmentedNeighborDiscovery: "fragmented_neighbor_discovery",
	FragmentTinyFirst:           "fragment_tiny_first",
	FragmentDuplicate:           "fragment_duplicate",
	FragmentConflict:            "fragment_conflict",
	FragmentOverlap:             "fragment_overlap",
	FragmentConflictingEnd:      "fragment_conflicting_end",
	FragmentBeyondEnd:           "fragment_beyond_end",
	FragmentPoisoned:            "fragment_poisoned",
	FragmentTooMany:             "fragment_too_many",
	FragmentTimeout:             "fragment_timeout",
	FragmentEvicted:             "fragment_evicted",
	FragmentShed:                "fragment_shed",
	FragmentSuperseded:          "fragment_superseded",
	FragmentDisagreement:        "fragment_disagreement",
	FragmentECN:                 "fragment_ecn",
	FragmentMode:                "fragment_mode",
	FragmentShutdown:            "fragment_shutdown",
	PolicyRule:                  "policy_rule",
	PolicyDefault:               "policy_default",
	PolicyARP:                   "policy_arp",
	PolicyNeighborDiscovery:     "policy_neighbor_discovery",
	PolicyNonIP:                 "policy_non_ip",
	PolicySourceRoute:           "policy_source_route",
	TransportTruncated:          "transport_truncated",
	FlowInvalid:                 "flow_invalid",
	FlowDenied:                  "flow_denied",
	EgressFailed:                "egress_failed",
	SnapLength:                  "snap_length",
}

// String returns the name of the reason in counters and events.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}
