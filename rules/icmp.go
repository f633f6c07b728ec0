package rules

import "maps"

// The ICMP types, by their names in nftables (nft(8), "icmp type" and "icmpv6 type").
var (
	icmpTypeNames = map[string]int64{
		"echo-reply":              0,
		"destination-unreachable": 3,
		"source-quench":           4,
		"redirect":                5,
		"echo-request":            8,
		"router-advertisement":    9,
		"router-solicitation":     10,
		"time-exceeded":           11,
		"parameter-problem":       12,
		"timestamp-request":       13,
		"timestamp-reply":         14,
		"info-request":            15,
		"info-reply":              16,
		"address-mask-request":    17,
		"address-mask-reply":      18,
	}
	icmpv6TypeNames = map[string]int64{
		"destination-unreachable": 1,
		"packet-too-big":          2,
		"time-exceeded":           3,
		"parameter-problem":       4,
		"echo-request":            128,
		"echo-reply":              129,
		"mld-listener-query":      130,
		"mld-listener-report":     131,
		"mld-listener-done":       132,
		"mld-listener-reduction":  132,
		"nd-router-solicit":       133,
		"nd-router-advert":        134,
		"nd-neighbor-solicit":     135,
		"nd-neighbor-advert":      136,
		"nd-redirect":             137,
		"router-renumbering":      138,
		"ind-neighbor-solicit":    141,
		"ind-neighbor-advert":     142,
		"mld2-listener-report":    143,
	}
)

var (
	icmpTypes = scale{
		noun: "a type of icmp", example: `"echo-request", 8 or [0, 8]`, exampleOfOne: `"echo-request" or 8`, hi: 255, names: icmpTypeNames,
		foreign: icmpv6TypeNames, foreignNoun: "one of icmpv6",
	}
	icmpv6Types = scale{
		noun: "a type of icmpv6", example: `"echo-request", 128 or [128, 129]`, exampleOfOne: `"echo-request" or 128`, hi: 255, names: icmpv6TypeNames,
		foreign: icmpTypeNames, foreignNoun: "one of icmp",
	}
	// eitherICMPTypes has the names of both families. It serves to detect names of
	// neither; its numbers have no meaning.
	eitherICMPTypes = scale{
		noun: "an ICMP type", example: icmpTypes.example, exampleOfOne: icmpTypes.exampleOfOne, hi: 255, names: eitherNames(icmpTypeNames, icmpv6TypeNames),
	}
)

func eitherNames(a, b map[string]int64) map[string]int64 {
	names := maps.Clone(a)
	maps.Copy(names, b)
	return names
}
