package replay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// verdictTime is RFC 3339 with nanoseconds, always nine digits of them.
const verdictTime = "2006-01-02T15:04:05.000000000Z07:00"

// appendVerdict appends a decision as a line of JSON. The order of the fields
// is part of what users see.
func appendVerdict(b []byte, at time.Time, d *wire.Decision) []byte {
	o := object(append(b, '{'))
	o.time("time", at)
	o.string("from", d.From.String())
	o.verdict(d.Verdict, d.Rule())
	o.packet(d.Parsed())
	o.number("fragments", d.Fragments)
	o.number("bytes", d.Bytes())
	return append(o, '}', '\n')
}

// object is a JSON object that is being written, its brace not closed yet.
type object []byte

func (o *object) key(name string) {
	if (*o)[len(*o)-1] != '{' {
		*o = append(*o, ',')
	}
	*o = append(*o, '"')
	*o = append(*o, name...)
	*o = append(*o, '"', ':')
}

// string adds a value that has nothing to escape.
func (o *object) string(name, value string) {
	o.key(name)
	*o = append(*o, '"')
	*o = append(*o, value...)
	*o = append(*o, '"')
}

// text adds a value that may have anything in it.
func (o *object) text(name, value string) {
	if strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0 {
		o.string(name, value)
		return
	}
	quoted, _ := json.Marshal(value) // a string always can be
	o.key(name)
	*o = append(*o, quoted...)
}

func (o *object) time(name string, at time.Time) {
	o.key(name)
	*o = append(at.UTC().AppendFormat(append(*o, '"'), verdictTime), '"')
}

func (o *object) number(name string, value int) {
	o.key(name)
	*o = strconv.AppendInt(*o, int64(value), 10)
}

func (o *object) address(name string, a netip.Addr) {
	if !a.IsValid() {
		return
	}
	o.key(name)
	*o = append(a.AppendTo(append(*o, '"')), '"')
}

func (o *object) verdict(v filter.Verdict, rule *filter.Rule) {
	o.string("verdict", v.Action.String())
	if v.Action != verdict.Accept {
		o.string("reason", v.Reason.String())
	}
	if rule != nil {
		o.text("rule", rule.Name)
		o.number("line", rule.Line)
	}
}

func (o *object) packet(p *packet.Parsed) {
	if vlans := p.VLANs(); vlans.Len() > 0 {
		o.key("vlans")
		for i, vlan := range vlans[:vlans.Len()] {
			*o = strconv.AppendUint(append(*o, "[,"[min(i, 1)]), uint64(vlan.VID()), 10)
		}
		*o = append(*o, ']')
	}
	switch {
	case p.Kind == packet.ARP:
		o.string("protocol", "arp")
	case p.Kind == packet.NonIP && p.Network > 0:
		o.string("ethertype", fmt.Sprintf("%#04x", p.EtherType))
	case p.Upper > 0: // an IPv6 fragment other than the first does not say
		o.string("protocol", rules.ProtocolName(p.Protocol))
	}
	o.address("src", p.Src)
	if p.Transport == packet.Ports {
		o.number("sport", int(p.SrcPort))
	}
	o.address("dst", p.Dst)
	switch p.Transport {
	case packet.Ports:
		o.number("dport", int(p.DstPort))
	case packet.ICMP:
		o.number("icmp_type", int(p.ICMPType))
		o.number("icmp_code", int(p.ICMPCode))
	}
}
