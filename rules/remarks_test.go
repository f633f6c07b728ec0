package rules_test

import (
	"fmt"
	"strings"
	"testing"

	"fragwall/rules"
)

// TestRemarks checks the notes on policies that cannot work, and on ones that can.
func TestRemarks(t *testing.T) {
	rule := func(fields ...string) string {
		text := ""
		for i, f := range fields {
			text += fmt.Sprintf("[[rule]]\nname = \"r%d\"\naction = \"accept\"\n%s\n", i, f)
		}
		return text
	}
	const dns = "from = \"inside\"\nprotocol = \"udp\"\nsrc = \"10.0.0.0/8\"\ndst = \"10.0.0.2\"\ndst_port = 53"
	const correction = "; add a rule that accepts replies, or set policy.stateful = true"
	for name, tt := range map[string]struct{ text, want string }{
		"no answers":         {rule(dns), `rule "r0" accepts udp 10.0.0.1:49152 > 10.0.0.2:53 from inside, but policy.default drops the reply` + correction},
		"answers":            {rule(dns, "from = \"outside\"\nprotocol = \"udp\"\nsrc = \"10.0.0.2\"\nsrc_port = 53"), ""},
		"answers to others":  {rule(dns, "from = \"outside\"\nprotocol = \"udp\"\nsrc = \"10.0.0.3\"\nsrc_port = 53"), `rule "r0" accepts udp`},
		"answers dropped":    {"[policy]\ndefault = \"accept\"\n" + rule(dns) + "[[rule]]\nname = \"d\"\naction = \"reject\"\nfrom = \"outside\"\n", `rule "r0" accepts udp 10.0.0.1:49152 > 10.0.0.2:53 from inside, but rule "d" at line 15 drops the reply` + correction},
		"state":              {"[policy]\nstateful = true\n" + rule(dns), ""},
		"accepted by rule":   {"[policy]\ndefault = \"accept\"\n" + rule(dns), ""},
		"both sides":         {rule(""), ""},
		"one side":           {rule("from = \"outside\""), `rule "r0" accepts tcp 192.0.2.1:49152 > 192.0.2.2:80 from outside, but`},
		"three of them":      {rule(dns, "from = \"outside\"\nprotocol = \"tcp\"\ndst = \"2001:db8::/64\"", "protocol = \"icmp\"\nicmp_type = 8"), `rule "r0" accepts udp`},
		"an echo request":    {rule("protocol = \"icmpv6\"\nicmp_type = 128"), `rule "r0" accepts icmpv6 2001:db8::1 > 2001:db8::2, echo request from inside, but`},
		"echo":               {rule("protocol = \"icmp\"\nicmp_type = [0, 8]"), ""},
		"an error":           {rule("protocol = \"icmp\"\nicmp_type = 3"), ""},
		"no answers are due": {rule("protocol = \"esp\"\nfrom = \"inside\""), ""},
		"a limit":            {rule("limit = \"1/h\"\nprotocol = \"tcp\""), ""},
		"a VLAN":             {rule("from = \"inside\"\nvlan = 5", "from = \"outside\"\nvlan = 6"), `rule "r0" accepts tcp`},

		"behind a limit":      {rule("limit = \"1/s\"") + "[[rule]]\nname = \"bad host\"\naction = \"drop\"\nsrc = \"10.0.0.66\"\n", `rule "bad host" decides only beyond the limit of rule "r0" at line 5, which matches all datagrams that it matches`},
		"the same, accepted":  {rule("limit = \"1/s\"", ""), `rule "r1" decides only beyond the limit of rule "r0" at line 5, which matches all datagrams that it matches`},
		"the rest of a limit": {rule("limit = \"1/s\"") + "[[rule]]\nname = \"rest\"\naction = \"drop\"\n", ""},
		"more than the limit": {rule("limit = \"1/s\"\nsrc = \"10.0.0.0/8\"\ndst = \"10.0.0.0/8\"") + "[[rule]]\nname = \"rest\"\naction = \"drop\"\ndst = \"10.0.0.0/8\"\n", ""},
		"behind it and one":   {rule("limit = \"1/s\"", "limit = \"2/s\"\nsrc = \"10.0.0.0/8\"", ""), "rule \"r1\" decides only beyond the limit of rule \"r0\" at line 5, which matches all datagrams that it matches\nrule \"r2\" decides only"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, n := range parse(t, tt.text).Remarks() {
				got = append(got, n.Text)
			}
			if text := strings.Join(got, "\n"); !strings.HasPrefix(text, tt.want) || tt.want == "" && text != "" {
				t.Errorf("got  %q\nwant %q", text, tt.want)
			}
		})
	}
}

// TestMTUNote has sides with different MTUs.
func TestMTUNote(t *testing.T) {
	if notes := parse(t, "mtu = 1500\n").Notes; len(notes) != 0 {
		t.Errorf("%v", notes)
	}
	text := strings.Replace(minimal, "[outside]", "mtu = 9000\n[outside]", 1)
	for mtu, want := range map[int]string{
		9000: "[]", 1500: "[x.toml:6: note: outside.mtu: 1500, but inside.mtu is 9000 at line 3: packets longer than the smaller mtu cannot leave by that side]",
	} {
		c, err := rules.Parse("x.toml", fmt.Appendf(nil, "%smtu = %d\n", text, mtu))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(c.Notes); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
