package rules_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"fragwall/filter"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// TestReference checks that the reference has every key and every table.
func TestReference(t *testing.T) {
	const file = "testdata/reference.toml"
	if _, err := rules.Load(file); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if _, err := toml.DecodeFile(file, &values); err != nil {
		t.Fatal(err)
	}
	for _, key := range rules.Top {
		if _, ok := values[key]; !ok {
			t.Errorf("no key %s", key)
		}
	}
	for name, keys := range rules.Contract {
		found := make(map[string]bool)
		switch v := values[name].(type) {
		case map[string]any:
			for key := range v {
				found[key] = true
			}
		case []map[string]any:
			for _, rule := range v {
				for key := range rule {
					found[key] = true
				}
			}
		default:
			t.Errorf("no table %s", name)
		}
		for _, key := range keys {
			if !found[key] {
				t.Errorf("no key %s.%s", name, key)
			}
		}
	}
}

const minimal = "[inside]\ntap = \"a\"\n[outside]\ntap = \"b\"\n"

func parse(t *testing.T, text string) *rules.Config {
	t.Helper()
	c, err := rules.Parse(filepath.Join(t.TempDir(), "x.toml"), []byte(minimal+text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDefaults compares a file with only two TAPs with the reference configuration, whose
// values are the defaults.
func TestDefaults(t *testing.T) {
	c := parse(t, "")
	reference, err := rules.Load("testdata/reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Fragments != reference.Fragments {
		t.Errorf("fragments %+v, want %+v", c.Fragments, reference.Fragments)
	}
	if c.Log != reference.Log || c.Status.Listen != reference.Status.Listen || c.OnExit != reference.OnExit {
		t.Errorf("%+v %+v %v, want %+v %+v %v", c.Log, c.Status, c.OnExit, reference.Log, reference.Status, reference.OnExit)
	}
	p := *reference.Policy
	p.Rules = nil
	if !reflect.DeepEqual(*c.Policy, p) {
		t.Errorf("policy %+v, want %+v", *c.Policy, p)
	}
	if c.Inside.MTU != 1500 || !c.Inside.Offload || c.Inside.Queues != 0 || c.Inside.NIC != "" || c.Inside.Bridge != "" {
		t.Errorf("%+v", c.Inside)
	}
}

func TestPolicy(t *testing.T) {
	c := parse(t, "[policy]\ndefault = \"reject\"\nstateful = true\narp = \"drop\"\nneighbor_discovery = \"drop\"\nsource_route = \"accept\"")
	if want := (filter.Policy{Default: verdict.Reject, SourceRoute: verdict.Accept, Stateful: true}); !reflect.DeepEqual(*c.Policy, want) {
		t.Errorf("%+v, want %+v: a frame that is not IP cannot be rejected", *c.Policy, want)
	}
	if c := parse(t, "[policy]\ndefault = \"accept\""); c.Policy.NonIP != verdict.Accept {
		t.Error("non_ip does not follow default")
	}
}

// TestFlows reads the keys that define flows, and the notes on those without effect.
func TestFlows(t *testing.T) {
	c := parse(t, "[policy]\nstateful = true\ntcp = \"loose\"\nflow_vlans = \"any\"")
	if !c.Policy.LooseTCP || !c.Policy.AnyVLANs || len(c.Notes) > 0 {
		t.Errorf("%+v, %v", c.Policy, c.Notes)
	}
	c = parse(t, "[policy]\ntcp = \"loose\"\nflow_vlans = \"any\"")
	if len(c.Notes) != 2 || c.Notes[0].String() != c.File+":6: note: policy.tcp: \"loose\" applies to flows, and there are no flows without stateful = true" {
		t.Error(c.Notes)
	}
	if c := parse(t, "[policy]\ntcp = \"strict\"\nflow_vlans = \"same\""); c.Policy.LooseTCP || c.Policy.AnyVLANs || len(c.Notes) > 0 {
		t.Errorf("%+v, %v", c.Policy, c.Notes)
	}
}

// TestOperate reads the keys of the log, of the status server, and on_exit.
func TestOperate(t *testing.T) {
	c := parse(t, "[log]\nformat = \"json\"\nlevel = \"warn\"\ndrops = \"all\"\n[status]\nlisten = \"[::]:80\"\ntoken_file = \"/t\"\n")
	if want := (rules.Log{Format: "json", Level: slog.LevelWarn, Drops: rules.All}); c.Log != want {
		t.Errorf("%+v, want %+v", c.Log, want)
	}
	if want := (rules.Status{Listen: "[::]:80", TokenFile: "/t"}); c.Status != want {
		t.Errorf("%+v, want %+v", c.Status, want)
	}
	for drops, want := range map[string]filter.Rate{"off": {}, "3/m": {Count: 3, Per: time.Minute}} {
		if c := parse(t, fmt.Sprintf("[log]\ndrops = %q", drops)); c.Log.Drops != want {
			t.Errorf("%s: %+v", drops, c.Log.Drops)
		}
	}
	for _, listen := range []string{"", "localhost:80", "127.1.2.3:80", "[::1]:80"} {
		if c := parse(t, fmt.Sprintf("[status]\nlisten = %q", listen)); c.Status.Listen != listen {
			t.Errorf("%q: %q", listen, c.Status.Listen)
		}
	}
	bypass, err := rules.Parse("x.toml", []byte("on_exit = \"bypass\"\n"+minimal))
	if err != nil || bypass.OnExit != rules.ExitBypass || len(bypass.Notes) != 1 {
		t.Errorf("%v, %v: want a note that there are no nics", bypass, err)
	}
	if fixed := c.Fixed(bypass); !slices.Equal(fixed, []string{"status.listen", "status.token_file", "log.format", "on_exit"}) {
		t.Errorf("fixed %q", fixed)
	}
}

func addrs(ranges ...string) filter.AddrSet {
	var list []filter.Range[netip.Addr]
	for _, r := range ranges {
		lo, hi, _ := strings.Cut(r, "-")
		list = append(list, filter.Range[netip.Addr]{Lo: netip.MustParseAddr(lo), Hi: netip.MustParseAddr(hi)})
	}
	return filter.NewAddrSet(list...)
}

func set[T ~uint8 | ~uint16](bounds ...T) filter.Set[T] {
	var ranges []filter.Range[T]
	for i := 0; i < len(bounds); i += 2 {
		ranges = append(ranges, filter.Range[T]{Lo: bounds[i], Hi: bounds[i+1]})
	}
	return filter.NewSet(ranges...)
}

// TestRuleFields checks the compiled value of each field of a rule.
func TestRuleFields(t *testing.T) {
	inside, yes, no := verdict.Inside, true, false
	const all6 = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	tests := []struct {
		text string
		want filter.Rule
	}{
		{``, filter.Rule{}},
		{`from = "any"`, filter.Rule{}},
		{`from = "inside"`, filter.Rule{From: &inside}},
		{`protocol = "any"`, filter.Rule{}},
		{`protocol = "udp"`, filter.Rule{Protocols: set[uint8](17, 17)}},
		{`protocol = ["tcp", 17, "200"]`, filter.Rule{Protocols: set[uint8](6, 6, 17, 17, 200, 200)}},
		{`protocol = "!tcp"`, filter.Rule{Protocols: set[uint8](0, 5, 7, 255)}},
		{`src = "10.0.0.1"`, filter.Rule{Src: addrs("10.0.0.1-10.0.0.1")}},
		{`src = "10.0.0.0/24"`, filter.Rule{Src: addrs("10.0.0.0-10.0.0.255")}},
		{`dst = "10.0.0.1-10.0.0.9"`, filter.Rule{Dst: addrs("10.0.0.1-10.0.0.9")}},
		{`dst = ["2001:db8::/127", "10.0.0.1"]`, filter.Rule{Dst: addrs("10.0.0.1-10.0.0.1", "2001:db8::-2001:db8::1")}},
		{`src = "!10.0.0.0/8"`, filter.Rule{Src: addrs("0.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.255", all6)}},
		{`src = ["10.0.0.0/24", "!10.0.0.7"]`, filter.Rule{Src: addrs("10.0.0.0-10.0.0.6", "10.0.0.8-10.0.0.255")}},
		{`src = ["!0.0.0.0/0"]`, filter.Rule{Src: addrs(all6)}},
		{`src = "@listed"`, filter.Rule{Src: addrs("10.1.0.0-10.1.255.255", "2001:db8::1-2001:db8::1")}},
		{`dst = ["10.0.0.0/15", "!@listed"]`, filter.Rule{Dst: addrs("10.0.0.0-10.0.255.255")}},
		{`dst = ["@listed", "@filed"]`, filter.Rule{Dst: addrs("10.1.0.0-10.1.255.255", "192.0.2.0-192.0.2.1", "192.0.2.3-192.0.2.255", "2001:db8::1-2001:db8::1")}},
		{`dst = "@single"`, filter.Rule{Dst: addrs("10.9.0.0-10.9.0.255")}},
		{"protocol = \"udp\"\nsrc_port = 53", filter.Rule{Protocols: set[uint8](17, 17), SrcPorts: set[uint16](53, 53)}},
		{"protocol = \"udp\"\ndst_port = [\"1024-65535\", 53, \"!2000-3000\"]", filter.Rule{Protocols: set[uint8](17, 17), DstPorts: set[uint16](53, 53, 1024, 1999, 3001, 65535)}},
		{"protocol = \"icmp\"\nicmp_type = \"echo-request\"\nicmp_code = 0", filter.Rule{Protocols: set[uint8](1, 1), ICMPTypes: set[uint8](8, 8), ICMPCodes: set[uint8](0, 0)}},
		{"protocol = \"icmpv6\"\nicmp_type = [\"echo-request\", \"1-4\"]", filter.Rule{Protocols: set[uint8](58, 58), ICMPTypes: set[uint8](1, 4, 128, 128)}},
		{`vlan = 10`, filter.Rule{VLANs: &filter.VLANs{IDs: set[uint16](10, 10)}}},
		{`vlan = ["none", "100-199"]`, filter.Rule{VLANs: &filter.VLANs{Untagged: true, IDs: set[uint16](100, 199)}}},
		{`vlan = "none"`, filter.Rule{VLANs: &filter.VLANs{Untagged: true, IDs: set[uint16]()}}},
		{`vlan = "!none"`, filter.Rule{VLANs: &filter.VLANs{IDs: set[uint16](1, 4094)}}},
		{`fragmented = false`, filter.Rule{Fragmented: &no}},
		{`fragmented = true`, filter.Rule{Fragmented: &yes}},
		{`log = true`, filter.Rule{Log: true}},
		{`limit = "100/s"`, filter.Rule{Limit: filter.Rate{Count: 100, Per: time.Second}}},
		{`limit = "5/m"`, filter.Rule{Limit: filter.Rate{Count: 5, Per: time.Minute}}},
	}
	dir := t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "filed.txt"), []byte("\ufeff# a file\n192.0.2.0/24 # a network\r\n\n!192.0.2.2"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	const sets = "[sets]\nlisted = [\"10.1.0.0/16\", \"2001:db8::1\"]\nfiled = { file = \"filed.txt\" }\nsingle = \"10.9.0.0/24\"\n"
	for _, action := range []verdict.Action{verdict.Accept, verdict.Drop, verdict.Reject} {
		for _, tt := range tests {
			t.Run(fmt.Sprint(action, " ", tt.text), func(t *testing.T) {
				text := fmt.Sprintf("%s%s[[rule]]\nname = \"r\"\naction = %q\n%s\n", minimal, sets, action, tt.text)
				c, err := rules.Parse(filepath.Join(dir, "x.toml"), []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				tt.want.Name, tt.want.Action, tt.want.Line = "r", action, 9
				if got := c.Policy.Rules[0]; !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got  %+v\nwant %+v", got, tt.want)
				}
			})
		}
	}
}

// TestShadows has rules that never decide, and some that only appear not to.
func TestShadows(t *testing.T) {
	text := ""
	for i, fields := range []string{
		`dst = "10.0.0.0/8"`,  // r0
		`dst = "10.1.0.0/16"`, // r1, shadowed by r0
		"dst = [\"10.2.0.1\", \"11.0.0.1\"]",
		"limit = \"1/s\"\nsrc = \"192.0.2.0/24\"",
		`src = "192.0.2.1"`, // r4, shadowed by r3 up to its rate
		"protocol = \"udp\"\ndst_port = \"1-100\"",
		"protocol = \"udp\"\ndst_port = \"50-101\"",
		"protocol = \"udp\"\ndst_port = \"50-60\"\nvlan = 5", // r7, shadowed by r5
		``,
		`vlan = "none"`, // r9, shadowed by r8
	} {
		text += fmt.Sprintf("[[rule]]\nname = \"r%d\"\naction = \"drop\"\n%s\n", i, fields)
	}
	var got []string
	for _, n := range parse(t, text).Remarks() {
		got = append(got, n.Text)
	}
	want := []string{
		`rule "r1" never decides: rule "r0" at line 5 matches all datagrams that it matches`,
		`rule "r4" decides only beyond the limit of rule "r3" at line 17, which matches all datagrams that it matches`,
		`rule "r7" never decides: rule "r5" at line 27 matches all datagrams that it matches`,
		`rule "r9" never decides: rule "r8" at line 41 matches all datagrams that it matches`,
	}
	for i := range want { // the lines are those of the text above
		if i >= len(got) || strings.SplitAfter(got[i], " at ")[0] != strings.SplitAfter(want[i], " at ")[0] {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%q", got)
	}
}

// TestNeighborDiscoveryNote has rules that come too late to decide on neighbor discovery.
func TestNeighborDiscoveryNote(t *testing.T) {
	for types, noted := range map[string]bool{
		`"nd-router-advert"`: true, `[133, "136-137"]`: true, `["nd-redirect", "echo-request"]`: false, `"!nd-redirect"`: false, `"132-133"`: false,
	} {
		notes := parse(t, "[[rule]]\nname = \"r\"\naction = \"drop\"\nprotocol = \"icmpv6\"\nicmp_type = "+types+"\n").Notes
		if got := len(notes) == 1 && notes[0].Line == 9 && strings.HasPrefix(notes[0].Text, "icmp_type: policy.neighbor_discovery decides"); got != noted {
			t.Errorf("%s: %v", types, notes)
		}
	}
}

// TestUnreadableSet checks that the reason why a set file cannot be read is wrapped.
func TestUnreadableSet(t *testing.T) {
	_, err := rules.Parse("x.toml", []byte(minimal+"[sets]\na = { file = \"nowhere.txt\" }\n"))
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
}

// FuzzParse checks that every mistake has a line of the file, and a text of one line.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range append(files, "testdata/reference.toml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := rules.Parse("testdata/x.toml", []byte(text))
		if err == nil {
			if c == nil || c.Policy == nil {
				t.Fatal("neither a configuration nor an error")
			}
			return
		}
		checkMistakes(t, err, text)
	})
}

// checkMistakes checks that each mistake has a line of the text, and a text of one line.
func checkMistakes(t *testing.T, err error, text string) {
	t.Helper()
	var mistakes *rules.Errors
	if !errors.As(err, &mistakes) || len(mistakes.Mistakes) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	for _, m := range mistakes.Mistakes {
		if lines := strings.Count(text, "\n") + 1; m.Line < 1 || m.File == "" && m.Line > lines {
			t.Errorf("line %d of %d: %s", m.Line, lines, m.Text)
		}
		if strings.TrimSpace(m.Text) == "" || strings.ContainsAny(m.Text, "\n\r") {
			t.Errorf("not one line: %q", m.Text)
		}
	}
}

// TestFixed changes each key of the devices and of the fragment table.
func TestFixed(t *testing.T) {
	before := parse(t, "")
	for _, of := range []struct {
		name  string
		value reflect.Value
	}{
		{"inside", reflect.ValueOf(&before.Inside).Elem()},
		{"outside", reflect.ValueOf(&before.Outside).Elem()},
		{"fragments", reflect.ValueOf(&before.Fragments).Elem()},
	} {
		for i, key := range rules.Contract[of.name] {
			after := parse(t, "")
			if same := before.Fixed(after); same != nil {
				t.Fatalf("%q", same)
			}
			f := of.value.Field(i)
			if tag := of.value.Type().Field(i).Tag.Get("key"); !slices.Contains(rules.Contract[of.name], tag) {
				t.Errorf("%s.%s: no such key", of.name, tag)
			}
			old := reflect.ValueOf(f.Interface())
			switch {
			case f.CanInt():
				f.SetInt(f.Int() + 1)
			case f.CanUint():
				f.SetUint(f.Uint() + 1)
			case f.Kind() == reflect.Bool:
				f.SetBool(!f.Bool())
			default:
				f.SetString(f.String() + "x")
			}
			if got := before.Fixed(after); len(got) != 1 || !strings.HasPrefix(got[0], of.name+".") {
				t.Errorf("%s.%s: %q", of.name, key, got)
			}
			f.Set(old)
		}
	}
}

// TestDeviceDefaults checks the defaults: the NIC's MTU, held links, and the fast path.
func TestDeviceDefaults(t *testing.T) {
	c, err := rules.Parse("x.toml", []byte("[inside]\ntap = \"a\"\nnic = \"b\"\n[outside]\ntap = \"c\"\n"))
	if err != nil || c.Inside.MTU != 0 || c.Outside.MTU != rules.StandardMTU || c.OnLinkDown != rules.LinkHold || c.FastPath != rules.FastPathAuto {
		t.Fatalf("%+v, %v", c, err)
	}
	next, err := rules.Parse("x.toml", []byte("on_link_down = \"propagate\"\nfast_path = \"off\"\n[inside]\ntap = \"a\"\nnic = \"b\"\nmtu = 9000\n[outside]\ntap = \"c\"\n"))
	if err != nil || next.OnLinkDown != rules.LinkPropagate || next.FastPath != rules.FastPathOff {
		t.Fatalf("%+v, %v", next, err)
	}
	if fixed := c.Fixed(next); !slices.Equal(fixed, []string{"inside.mtu", "on_link_down", "fast_path"}) {
		t.Errorf("fixed %q", fixed)
	}
	if _, err := rules.Parse("x.toml", []byte("on_link_down = \"drop\"\n[inside]\ntap = \"a\"\n[outside]\ntap = \"c\"\n")); err == nil {
		t.Error("an unknown word is accepted")
	}
}
