package selector

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// parse parses a command line.
func parse(line string) (Selector, error) {
	c := &cobra.Command{}
	s := Flags(c)
	return s, c.ParseFlags(strings.Fields(line))
}

// TestMatches checks which tuples the flags select.
func TestMatches(t *testing.T) {
	address := netip.MustParseAddr
	dns := Tuple{VLAN: 10, Protocol: 17, HasProtocol: true, Src: address("10.0.0.1"), Dst: address("192.0.2.53"), HasPorts: true, SrcPort: 40000, DstPort: 53}
	ping := Tuple{From: verdict.Outside, Protocol: 1, HasProtocol: true, Src: address("192.0.2.53"), Dst: address("10.0.0.1")}
	six := Tuple{Protocol: 6, HasProtocol: true, Src: address("2001:db8::1"), Dst: address("2001:db8:1::53"), HasPorts: true, SrcPort: 53, DstPort: 40000}
	fragment := Tuple{Src: address("2001:db8::1"), Dst: address("2001:db8:1::53")} // not the first fragment, so the protocol is not known
	arp := Tuple{}
	for _, tt := range []struct {
		line string
		want []*Tuple
	}{
		{"", []*Tuple{&dns, &ping, &six, &fragment, &arp}},
		{"--proto udp", []*Tuple{&dns}},
		{"--proto 6", []*Tuple{&six}},
		{"--proto 0", nil},
		{"--host 10.0.0.1", []*Tuple{&dns, &ping}},
		{"--host 10.0.0.0/24", []*Tuple{&dns, &ping}},
		{"--host 0.0.0.0/0", []*Tuple{&dns, &ping}},
		{"--host ::/0", []*Tuple{&six, &fragment}},
		{"--host 2001:db8:1::/48", []*Tuple{&six, &fragment}},
		{"--host 10.0.0.2-10.0.0.9", nil},
		{"--src 10.0.0.1", []*Tuple{&dns}},
		{"--dst 10.0.0.1", []*Tuple{&ping}},
		{"--port 53", []*Tuple{&dns, &six}},
		{"--sport 53", []*Tuple{&six}},
		{"--dport 53", []*Tuple{&dns}},
		{"--port 0", nil},
		{"--vlan 10", []*Tuple{&dns}},
		{"--vlan none", []*Tuple{&ping, &six, &fragment, &arp}},
		{"--from outside", []*Tuple{&ping}},
		{"--from inside", []*Tuple{&dns, &six, &fragment, &arp}},
		{"--host 10.0.0.1 --proto udp --port 53 --from inside --vlan 10", []*Tuple{&dns}},
		{"--host 10.0.0.1 --proto udp --port 54", nil},
	} {
		s, err := parse(tt.line)
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var sent Selector
		if err := json.Unmarshal(text, &sent); err != nil {
			t.Fatal(err)
		}
		f, err := sent.Filter()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []*Tuple
		for _, tuple := range []*Tuple{&dns, &ping, &six, &fragment, &arp} {
			if f.Matches(tuple) {
				got = append(got, tuple)
			}
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s matches %d, want %d", tt.line, len(got), len(tt.want))
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: %v, want %v", tt.line, got[i], tt.want[i])
			}
		}
	}
}

func TestMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"--proto nosuch":          `invalid argument "nosuch" for "--proto" flag`,
		"--host 10.0.0.1/8":       `did you mean "10.0.0.0/8"?`,
		"--host example.org":      "is not an address, a prefix or a range",
		"--src ::ffff:10.0.0.1":   `did you mean "10.0.0.1"?`,
		"--dst 10.0.0.0/33":       "want 0 to 32",
		"--port 65536":            `"--port" flag`,
		"--sport 1-2":             "is a range; want one number",
		"--dport http":            `"--dport" flag`,
		"--vlan 4095":             `"--vlan" flag`,
		"--from both":             `want "inside" or "outside"`,
		"--host 10.0.0.1 --to xy": "unknown flag",
	} {
		if _, err := parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	for _, s := range []Selector{{"to": "x"}, {"proto": "nosuch"}, {"host": ""}} {
		if _, err := s.Filter(); err == nil || !strings.HasPrefix(err.Error(), "--") {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func TestText(t *testing.T) {
	s, err := parse("--from inside --port 53 --proto udp --port 54")
	if err != nil || s.String() != "--proto udp --port 54 --from inside" {
		t.Errorf("%q, %v", s, err)
	}
}

// TestTupleOf checks the tuples of frames.
func TestTupleOf(t *testing.T) {
	d := packettest.UDP(netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.53:53"), packettest.Body(3000))
	p := parsed(t, d.Frame())
	want := Tuple{From: verdict.Outside, Protocol: 17, HasProtocol: true, Src: d.Src, Dst: d.Dst, HasPorts: true, SrcPort: 40000, DstPort: 53}
	if got := TupleOf(p, verdict.Outside); got != want {
		t.Errorf("%+v", got)
	}
	p = parsed(t, d.Fragments(1440)[1])
	want.HasPorts, want.SrcPort, want.DstPort = false, 0, 0
	if got := TupleOf(p, verdict.Outside); got != want {
		t.Errorf("%+v", got)
	}
}

func parsed(t *testing.T, frame []byte) *packet.Parsed {
	t.Helper()
	p := new(packet.Parsed)
	if why := p.Decode(frame); why != verdict.Passed {
		t.Fatal(why)
	}
	return p
}
