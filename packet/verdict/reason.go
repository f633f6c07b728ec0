package verdict

// Reason says why a frame did not pass. The list is closed: every frame that
// comes in is forwarded, waits for the rest of its datagram, or is dropped
// for exactly one of these.
type Reason uint8

// Passed is the zero Reason: nothing speaks against the frame so far.
const Passed Reason = 0

// What is wrong with the frame or with the packet in it, whatever the policy.
const (
	// EthernetTruncated: shorter than an Ethernet header and its VLAN tags.
	EthernetTruncated Reason = 1
	// VLANTooDeep: three or more VLAN tags.
	VLANTooDeep Reason = 2
	// LLCHeader: an LLC header as of IP and ARP, and an 802.3 length that does not
	// hold it or exceeds the frame; or such a header in LLC (RFC 1042).
	LLCHeader Reason = 3
	// IPv4Header: truncated, of another version, or IHL under 5 (RFC 791 §3.1).
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
	// IPv6Chain: an extension header does not fit the packet, or a hop-by-hop
	// header stands anywhere but first (RFC 8200 §4.1).
	IPv6Chain Reason = 10
	// IPv6ChainTooLong: more extension headers than packet.MaxExtensionHeaders.
	IPv6ChainTooLong Reason = 11
	// ExceedsMTU: the packet is longer than the egress side's MTU.
	ExceedsMTU Reason = 12
	// OffloadHeader: what the frame leaves for the NIC to do (virtio-net header)
	// contradicts the packet in it.
	OffloadHeader Reason = 13
)

// What is wrong with one fragment on its own, before it meets others.
const (
	// FragmentEmpty: a fragment without payload.
	FragmentEmpty Reason = 14
	// FragmentUnaligned: the M flag with a length that is no multiple of 8
	// (RFC 791 §3.2, RFC 8200 §4.5).
	FragmentUnaligned Reason = 15
	// FragmentTooLong: offset and length, headers counted, exceed 65,535 bytes.
	FragmentTooLong Reason = 16
	// FragmentTwoHeaders: a second IPv6 fragment header.
	FragmentTwoHeaders Reason = 17
	// FragmentIncompleteChain: an IPv6 first fragment that lacks a part of its
	// header chain, the upper-layer header included (RFC 7112 §5).
	FragmentIncompleteChain Reason = 18
	// FragmentedNeighborDiscovery: neighbour discovery with a fragment header
	// (RFC 6980 §5).
	FragmentedNeighborDiscovery Reason = 19
	// FragmentTinyFirst: a first fragment without its whole transport header, in
	// a mode that judges it alone (RFC 1858 §3, RFC 3128).
	FragmentTinyFirst Reason = 20
)

// What became of a fragment among the others of its datagram.
const (
	// FragmentDuplicate: the same range with the same bytes was there already.
	FragmentDuplicate Reason = 21
	// FragmentConflict: the same range was there already with other bytes.
	FragmentConflict Reason = 22
	// FragmentOverlap: it covers a part of another fragment's range
	// (RFC 5722 §3).
	FragmentOverlap Reason = 23
	// FragmentConflictingEnd: two fragments disagree on where the datagram ends.
	FragmentConflictingEnd Reason = 24
	// FragmentBeyondEnd: data beyond the end that the last fragment set.
	FragmentBeyondEnd Reason = 25
	// FragmentPoisoned: its datagram was given up before, and nothing more of
	// it passes until its deadline.
	FragmentPoisoned Reason = 26
	// FragmentTooMany: its datagram came in more fragments than max_fragments.
	FragmentTooMany Reason = 27
	// FragmentTimeout: the datagram was not whole at its deadline.
	FragmentTimeout Reason = 28
	// FragmentEvicted: it gave way to others when the table was full.
	FragmentEvicted Reason = 29
	// FragmentShed: it came while fragwall was behind, of a datagram that was not taken
	// in: more waited than could be, or its source had sent no datagram that was
	// accepted, or too few for so many fragments.
	FragmentShed Reason = 30
	// FragmentSuperseded: its datagram was not whole when the sender used the
	// identification again, after so many others that it can't mean the same.
	FragmentSuperseded Reason = 31
	// FragmentDisagreement: the table and gVisor did not agree on whether the
	// datagram was whole.
	FragmentDisagreement Reason = 32
	// FragmentECN: some fragments of a datagram that was to be rebuilt are
	// ECN-capable, and others are not (RFC 3168 §5.3).
	FragmentECN Reason = 33
	// FragmentMode: the mode of fragments does not let it pass.
	FragmentMode Reason = 34
	// FragmentShutdown: it still waited when fragwall was stopped.
	FragmentShutdown Reason = 35
)

// What the policy decided.
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
	// TransportTruncated: the rule that would decide needs a field of the
	// transport header that the datagram is too short to hold.
	TransportTruncated Reason = 42
	// FlowInvalid: it has the addresses and ports of a known flow, but no host
	// sends it as the flow stands, and no rule accepts it.
	FlowInvalid Reason = 43
	// FlowDenied: a reload denied its flow, and the host that began the flow has
	// not sent anything since that the policy accepts.
	FlowDenied Reason = 44
)

// What has to do with neither the frame nor the policy.
const (
	// EgressFailed: the egress device refused the frame.
	EgressFailed Reason = 45
	// SnapLength: a capture holds only the beginning of the frame, too little to
	// decide as if it had come by the wire.
	SnapLength Reason = 46
)

// Reasons is how many values Reason has, [Passed] included; a Reason indexes
// an array of that length.
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

// String returns the reason's name as counters and events spell it.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}
