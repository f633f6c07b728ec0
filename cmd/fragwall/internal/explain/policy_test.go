package explain

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fragwall/packet"
	"fragwall/rules"
)

// config returns a configuration that consists of the devices and text.
func config(t *testing.T, text string) *rules.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fw.toml")
	if err := os.WriteFile(path, []byte("inside.tap = \"a\"\noutside.tap = \"b\"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := rules.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c.File = "fw.toml"
	return c
}

// datagram returns the datagram of a question. fields are "key=value" pairs.
func datagram(t *testing.T, fields string) *packet.View {
	t.Helper()
	d, err := question(fields).Datagram(nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func question(fields string) rules.Question {
	q := rules.Question{"from": "inside", "protocol": "udp", "src": "10.0.0.1", "dst": "192.0.2.1"}
	for field := range strings.FieldsSeq(fields) {
		key, value, _ := strings.Cut(field, "=")
		switch value {
		case "true", "false":
			q[key] = value == "true"
		default:
			q[key] = value
		}
	}
	return q
}

// three are three rules: DNS with a limit, no web, and ping.
const three = `[[rule]]
name = "dns"
action = "accept"
from = "inside"
protocol = "udp"
dst_port = 53
limit = "10/s"
[[rule]]
name = "no-web"
action = "reject"
protocol = "tcp"
dst_port = 80
[[rule]]
name = "ping"
action = "accept"
protocol = "icmp"
icmp_type = "echo-request"
`

// TestAsk checks what decides, its line, and the text of the answer.
func TestAsk(t *testing.T) {
	tests := []struct {
		name, config, question     string
		verdict, reason, rule, key string
		text                       []string
	}{
		{"a rule with a limit", three, "dst_port=53", "accept", "", "dns", "",
			[]string{"from inside: udp 10.0.0.1:49152 > 192.0.2.1:53\naccept: rule \"dns\" (fw.toml:3) is the first that matches\n", "up to 10/s; beyond that"}},
		{"a rule that rejects", three, "protocol=tcp dst_port=80", "reject", "policy_rule", "no-web", "", []string{"reject: rule \"no-web\" (fw.toml:10)"}},
		{"the default", three, "dst_port=54", "drop", "policy_default", "", keyDefault,
			[]string{"drop: no rule matches, so policy.default (fw.toml) decides\n", "not rule \"dns\" (fw.toml:3): all matches but dst_port\n"}},
		{"in a VLAN", three, "protocol=icmp vlan=7", "accept", "", "ping", "", []string{"icmp 10.0.0.1 > 192.0.2.1, type 8, code 0, vlan 7\n"}},
		{"another ICMP type", three, "protocol=icmp icmp_type=5 icmp_code=1", "drop", "policy_default", "", keyDefault,
			[]string{"type 5, code 1\n", "not rule \"ping\" (fw.toml:15): all matches but icmp_type"}},
		{"IPv6", three, "src=fd00::1 dst=fd00::2 dst_port=53", "accept", "", "dns", "", []string{"udp [fd00::1]:49152 > [fd00::2]:53\n"}},
		{"a source route", three, "dst_port=53 source_route=true", "drop", "policy_source_route", "", keySourceRoute,
			[]string{", source route\n", "policy.source_route (fw.toml) decides, before any rule"}},
		{"fragments that never pass", "fragments.mode = \"drop\"\n" + three, "dst_port=53 fragmented=true", "drop", "fragment_mode", "", keyMode,
			[]string{", in fragments\n", "fragments.mode (fw.toml) drops all fragments"}},
		{"first-accept-rest", "fragments.mode = \"first-accept-rest\"\n" + three, "dst_port=53 fragmented=true", "accept", "", "dns", "", []string{"the others pass without a verdict"}},
		{"neighbour discovery", three, "protocol=icmpv6 icmp_type=135 src=fd00::1 dst=fd00::2", "accept", "", "", keyNeighborDiscovery, []string{"policy.neighbor_discovery (fw.toml) decides"}},
		{"neighbour discovery in fragments", three, "protocol=icmpv6 icmp_type=135 src=fd00::1 dst=fd00::2 fragmented=true", "drop", "fragmented_neighbor_discovery", "", "",
			[]string{"neighbour discovery never passes in fragments (RFC 6980)"}},
		{"with state", "policy.stateful = true\n" + three, "from=outside dst_port=9", "drop", "policy_default", "", keyDefault, []string{"unless it belongs to a flow that was accepted"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := NewPolicy(config(t, tt.config)).Ask(datagram(t, tt.question))
			got, want := []string{a.Verdict, a.Reason, a.Rule, a.Key}, []string{tt.verdict, tt.reason, tt.rule, tt.key}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			var text strings.Builder
			if err := a.Write(&text); err != nil {
				t.Fatal(err)
			}
			for _, part := range tt.text {
				if !strings.Contains(text.String(), part) {
					t.Errorf("%s\nwant %q", text.String(), part)
				}
			}
		})
	}
}

// TestExpect checks the message about an expectation that is not met.
func TestExpect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "expect.toml")
	const common = "[[expect]]\nfrom = \"inside\"\nprotocol = \"udp\"\nsrc = \"10.0.0.1\"\ndst = \"192.0.2.1\"\n"
	p := NewPolicy(config(t, three))
	for expected, want := range map[string]string{
		"dst_port = 53\nverdict = \"accept\"":                        "",
		"dst_port = 53\nverdict = \"accept\"\nrule = \"dns\"":        "",
		"dst_port = 54\nverdict = \"drop\"\nrule = \"\"":             "",
		"name = \"q\"\ndst_port = 53\nverdict = \"drop\"":            `e:1: "q": expected drop, but rule "dns" (fw.toml:3) decides accept: from inside, udp 10.0.0.1:49152 > 192.0.2.1:53`,
		"dst_port = 53\nverdict = \"accept\"\nrule = \"\"":           `e:1: expected accept by no rule, but rule "dns" (fw.toml:3) decides accept`,
		"dst_port = 54\nverdict = \"accept\"\nrule = \"dns\"":        `; of rule "dns" (fw.toml:3) all matches but dst_port`,
		"dst_port = 54\nverdict = \"accept\"\nrule = \"web\"":        `; there is no rule "web"`,
		"src_port = 1\ndst_port = 1\nverdict = \"accept\"":           `policy.default (fw.toml) decides drop: from inside, udp 10.0.0.1:1 > 192.0.2.1:1`,
		"dst_port = 53\nverdict = \"accept\"\nrule = \"no-web\"":     `expected accept by rule "no-web", but rule "dns"`,
		"fragmented = true\ndst_port = 53\nverdict = \"reject\"":     `, in fragments`,
		"source_route = true\ndst_port = 53\nverdict = \"accept\"":   `policy.source_route (fw.toml) decides drop`,
		"dst_port = 54\nverdict = \"drop\"\nrule = \"dns\"\nvlan=10": `, vlan 10; of rule "dns"`,
	} {
		if err := os.WriteFile(path, []byte(common+expected+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := rules.LoadExpectations(path)
		if err != nil {
			t.Fatal(err)
		}
		r := p.Expect("e", &all[0])
		if got := r.Unmet(); r.Met != (want == "") || want != "" && !strings.Contains(got, want) {
			t.Errorf("%s\nmet %v: %s\nwant %s", expected, r.Met, got, want)
		}
	}
}
