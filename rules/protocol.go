package rules

import "strconv"

// protocolNames are the protocols, by their names in /etc/protocols and other common
// ones. Messages use the first name of a number.
var protocolNames = []struct {
	name   string
	number int64
}{
	{"hopopt", 0},
	{"icmp", 1},
	{"igmp", 2},
	{"ggp", 3},
	{"ipencap", 4}, {"ipip", 4}, {"ipv4", 4},
	{"st", 5},
	{"tcp", 6},
	{"egp", 8},
	{"igp", 9},
	{"pup", 12},
	{"udp", 17},
	{"hmp", 20},
	{"xns-idp", 22},
	{"rdp", 27},
	{"iso-tp4", 29},
	{"dccp", 33},
	{"xtp", 36},
	{"ddp", 37},
	{"idpr-cmtp", 38},
	{"ipv6", 41},
	{"ipv6-route", 43},
	{"ipv6-frag", 44},
	{"idrp", 45},
	{"rsvp", 46},
	{"gre", 47},
	{"esp", 50},
	{"ah", 51},
	{"skip", 57},
	{"icmpv6", 58}, {"ipv6-icmp", 58},
	{"ipv6-nonxt", 59},
	{"ipv6-opts", 60},
	{"rspf", 73},
	{"vmtp", 81},
	{"eigrp", 88},
	{"ospf", 89}, {"ospfigp", 89},
	{"ax.25", 93},
	{"etherip", 97},
	{"encap", 98},
	{"pim", 103},
	{"ipcomp", 108},
	{"vrrp", 112},
	{"l2tp", 115},
	{"isis", 124},
	{"sctp", 132},
	{"fc", 133},
	{"mobility-header", 135},
	{"udplite", 136}, {"udp-lite", 136},
	{"mpls-in-ip", 137},
	{"manet", 138},
	{"hip", 139},
	{"shim6", 140},
	{"wesp", 141},
	{"rohc", 142},
	{"ethernet", 143},
}

// protocols is the scale of the protocol field.
var protocols = scale{
	noun: "a protocol", example: `"udp", 17 or ["tcp", "udp"]`, exampleOfOne: `"udp" or 17`, hi: 255, names: protocolNumbers(), single: true,
}

func protocolNumbers() map[string]int64 {
	numbers := make(map[string]int64, len(protocolNames))
	for _, p := range protocolNames {
		numbers[p.name] = p.number
	}
	return numbers
}

// ProtocolName returns a protocol as in the configuration: its name, or its number if it
// has none.
func ProtocolName(number uint8) string {
	for _, p := range protocolNames {
		if p.number == int64(number) {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

// protocolName returns a protocol as in messages: its name in quotes, or its number.
func protocolName(number int64) string {
	for _, p := range protocolNames {
		if p.number == number {
			return quote(p.name)
		}
	}
	return strconv.FormatInt(number, 10)
}
