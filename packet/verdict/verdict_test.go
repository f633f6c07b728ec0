package verdict

import "testing"

// TestNumbers checks the numbers and the names. Both are formats: the numbers of maps that are
// shared with the kernel, the names of counters and events.
func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		side   Side
		number uint8
		name   string
	}{{Inside, 0, "inside"}, {Outside, 1, "outside"}} {
		check(t, tt.side, tt.number, tt.name)
	}
	for _, tt := range []struct {
		action Action
		number uint8
		name   string
	}{{Drop, 0, "drop"}, {Accept, 1, "accept"}, {Reject, 2, "reject"}} {
		check(t, tt.action, tt.number, tt.name)
	}
	reasons := []struct {
		reason Reason
		number uint8
		name   string
	}{
		{Passed, 0, "passed"},
		{EthernetTruncated, 1, "ethernet_truncated"},
		{VLANTooDeep, 2, "vlan_too_deep"},
		{LLCHeader, 3, "llc_header"},
		{IPv4Header, 4, "ipv4_header"},
		{IPv4Length, 5, "ipv4_length"},
		{IPv4Checksum, 6, "ipv4_checksum"},
		{IPv4Options, 7, "ipv4_options"},
		{IPv6Header, 8, "ipv6_header"},
		{IPv6Length, 9, "ipv6_length"},
		{IPv6Chain, 10, "ipv6_chain"},
		{IPv6ChainTooLong, 11, "ipv6_chain_too_long"},
		{ExceedsMTU, 12, "exceeds_mtu"},
		{OffloadHeader, 13, "offload_header"},
		{FragmentEmpty, 14, "fragment_empty"},
		{FragmentUnaligned, 15, "fragment_unaligned"},
		{FragmentTooLong, 16, "fragment_too_long"},
		{FragmentTwoHeaders, 17, "fragment_two_headers"},
		{FragmentIncompleteChain, 18, "fragment_incomplete_chain"},
		{FragmentedNeighborDiscovery, 19, "fragmented_neighbor_discovery"},
		{FragmentTinyFirst, 20, "fragment_tiny_first"},
		{FragmentDuplicate, 21, "fragment_duplicate"},
		{FragmentConflict, 22, "fragment_conflict"},
		{FragmentOverlap, 23, "fragment_overlap"},
		{FragmentConflictingEnd, 24, "fragment_conflicting_end"},
		{FragmentBeyondEnd, 25, "fragment_beyond_end"},
		{FragmentPoisoned, 26, "fragment_poisoned"},
		{FragmentTooMany, 27, "fragment_too_many"},
		{FragmentTimeout, 28, "fragment_timeout"},
		{FragmentEvicted, 29, "fragment_evicted"},
		{FragmentShed, 30, "fragment_shed"},
		{FragmentSuperseded, 31, "fragment_superseded"},
		{FragmentDisagreement, 32, "fragment_disagreement"},
		{FragmentECN, 33, "fragment_ecn"},
		{FragmentMode, 34, "fragment_mode"},
		{FragmentShutdown, 35, "fragment_shutdown"},
		{PolicyRule, 36, "policy_rule"},
		{PolicyDefault, 37, "policy_default"},
		{PolicyARP, 38, "policy_arp"},
		{PolicyNeighborDiscovery, 39, "policy_neighbor_discovery"},
		{PolicyNonIP, 40, "policy_non_ip"},
		{PolicySourceRoute, 41, "policy_source_route"},
		{TransportTruncated, 42, "transport_truncated"},
		{FlowInvalid, 43, "flow_invalid"},
		{FlowDenied, 44, "flow_denied"},
		{EgressFailed, 45, "egress_failed"},
		{SnapLength, 46, "snap_length"},
	}
	for _, tt := range reasons {
		check(t, tt.reason, tt.number, tt.name)
	}
	if len(reasons) != Reasons {
		t.Errorf("%d of %d reasons are listed here", len(reasons), Reasons)
	}
}

func check[T interface {
	~uint8
	String() string
}](t *testing.T, value T, number uint8, name string) {
	t.Helper()
	if uint8(value) != number || value.String() != name {
		t.Errorf("%d %q, want %d %q", uint8(value), value, number, name)
	}
}
