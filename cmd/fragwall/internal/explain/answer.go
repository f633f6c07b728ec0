package explain

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// Answer is the decision of a policy on a datagram, and the rule or key that decides. Fields
// that do not apply are omitted.
type Answer struct {
	From        string   `json:"from"`
	VLANs       []uint16 `json:"vlans,omitempty"` // outermost first
	Protocol    string   `json:"protocol"`
	Src         string   `json:"src"`
	SrcPort     *uint16  `json:"sport,omitempty"`
	Dst         string   `json:"dst"`
	DstPort     *uint16  `json:"dport,omitempty"`
	ICMPType    *uint8   `json:"icmp_type,omitempty"`
	ICMPCode    *uint8   `json:"icmp_code,omitempty"`
	Fragmented  bool     `json:"fragmented"`
	SourceRoute bool     `json:"source_route"`

	Verdict string `json:"verdict"`          // "accept", "drop" or "reject"
	Reason  string `json:"reason,omitempty"` // for a drop or reject
	File    string `json:"file"`             // configuration file
	Rule    string `json:"rule,omitempty"`   // rule that decides
	Line    int    `json:"line,omitempty"`   // line of the rule
	Limit   string `json:"limit,omitempty"`  // limit of the rule
	// Key is the configuration key that decides if no rule does. If both are "", RFC 6980
	// decides.
	Key   string   `json:"key,omitempty"`
	Near  []Near   `json:"near,omitempty"`
	Notes []string `json:"notes,omitempty"` // text for users: what else could change the verdict
}

// Near is a rule before the one that decides, of which all fields but one match.
type Near struct {
	Rule  string `json:"rule"`
	Line  int    `json:"line"`
	Field string `json:"field"` // key of the field that does not match
}

// Keys of the configuration that can decide.
const (
	keySourceRoute       = "policy.source_route"
	keyMode              = "fragments.mode"
	keyNeighborDiscovery = "policy.neighbor_discovery"
	keyDefault           = "policy.default"
)

// newAnswer returns an answer about a datagram without the decision.
func newAnswer(d *packet.View) Answer {
	a := Answer{
		From: d.From.String(), Protocol: rules.ProtocolName(d.Protocol), Src: d.Src.String(), Dst: d.Dst.String(),
		Fragmented: d.Fragmented, SourceRoute: d.SourceRoute,
	}
	if id := d.VLANs().ID(); id != 0 {
		a.VLANs = []uint16{id}
	}
	switch d.Transport {
	case packet.Ports:
		a.SrcPort, a.DstPort = &d.SrcPort, &d.DstPort
	case packet.ICMP:
		a.ICMPType, a.ICMPCode = &d.ICMPType, &d.ICMPCode
	}
	return a
}

// decide sets the verdict, the reason and the key that decides.
func (a *Answer) decide(action verdict.Action, why verdict.Reason, key string) {
	a.Verdict, a.Key = action.String(), key
	if why != verdict.Passed {
		a.Reason = why.String()
	}
}

// By returns what decides, and where it is in the file.
func (a *Answer) By() string {
	switch {
	case a.Rule != "":
		return fmt.Sprintf("rule %q (%s:%d)", a.Rule, a.File, a.Line)
	case a.Key != "":
		return fmt.Sprintf("%s (%s)", a.Key, a.File)
	}
	return "RFC 6980"
}

// Datagram returns the 5-tuple and the properties of the datagram as text.
func (a *Answer) Datagram() string {
	var text strings.Builder
	src, dst := a.Src, a.Dst
	if a.SrcPort != nil {
		src, dst = hostPort(src, *a.SrcPort), hostPort(dst, *a.DstPort)
	}
	fmt.Fprintf(&text, "%s %s > %s", a.Protocol, src, dst)
	if a.ICMPType != nil {
		fmt.Fprintf(&text, ", type %d, code %d", *a.ICMPType, *a.ICMPCode)
	}
	for _, id := range a.VLANs {
		fmt.Fprintf(&text, ", vlan %d", id)
	}
	if a.SourceRoute {
		text.WriteString(", source route")
	}
	if a.Fragmented {
		text.WriteString(", in fragments")
	}
	return text.String()
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// Write writes the answer as text.
func (a *Answer) Write(w io.Writer) error {
	_, err := io.WriteString(w, a.text(a.because()))
	return err
}

// because returns the sentence about what decides.
func (a *Answer) because() string {
	return fmt.Sprintf(cmp.Or(map[string]string{
		keyDefault: "no rule matches, so %s decides",
		keyMode:    "%s drops all fragments",
		"":         a.withoutKey(),
	}[a.Key], "%s decides, before any rule"), a.By())
}

// text returns the answer as text. because is the sentence about what decides.
func (a *Answer) text(because string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "from %s: %s\n%s: %s\n", a.From, a.Datagram(), a.Verdict, because)
	if a.Limit != "" {
		fmt.Fprintf(&text, "  up to %s; beyond that, the rules after it decide\n", a.Limit)
	}
	for _, n := range a.Near {
		fmt.Fprintf(&text, "  not rule %q (%s:%d): all matches but %s\n", n.Rule, a.File, n.Line, n.Field)
	}
	for _, note := range a.Notes {
		fmt.Fprintf(&text, "  %s\n", note)
	}
	return text.String()
}

// withoutKey returns the format of the sentence if no key decides.
func (a *Answer) withoutKey() string {
	if a.Rule != "" {
		return "%s is the first that matches"
	}
	return "neighbour discovery never passes in fragments (%s)"
}
