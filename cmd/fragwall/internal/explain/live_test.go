package explain

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/box/boxtest"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/wire"
)

// fastPath is a fast path with one entry.
type fastPath struct {
	*boxtest.FastPath
	key   flow.Key
	from  verdict.Side
	entry wire.FastEntry
}

func (f *fastPath) Entry(k *flow.Key, from verdict.Side) (e wire.FastEntry, known bool) {
	if *k != f.key || from != f.from {
		return e, false
	}
	return f.entry, true
}

// live is a box with a test clock.
type live struct {
	testing.TB
	*wire.Bump
	config *rules.Config
	now    time.Time
}

func newLive(t *testing.T, text string, f wire.FastPath) *live {
	t.Helper()
	l := &live{TB: t, config: config(t, text), now: time.Unix(1000, 0)}
	l.Bump = wire.New(wire.Config{Policy: l.config.Policy, FastPath: f, Now: func() time.Time { return l.now }})
	return l
}

// judge judges a datagram and updates the flows.
func (l *live) judge(from verdict.Side, src, dst string) {
	l.Helper()
	frame := packettest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), nil).Frame()
	p := new(packet.Parsed)
	if why := p.Decode(frame); why != verdict.Passed {
		l.Fatal(why)
	}
	l.Policy().Judge(&packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}, l.Elapsed)
}

func (l *live) ask(t *testing.T, question string) (LiveAnswer, string) {
	t.Helper()
	a := AskLive(l.config, l.Bump, datagram(t, question))
	var text strings.Builder
	if err := a.Write(&text); err != nil {
		t.Fatal(err)
	}
	return a, text.String()
}

func hold(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s\nwant %q", text, part)
		}
	}
}

// TestAskLive asks about flows and limits, and checks that asking does not change them.
func TestAskLive(t *testing.T) {
	l := newLive(t, "policy.stateful = true\n"+three, nil)
	l.judge(verdict.Inside, "10.0.0.1:40000", "192.0.2.1:53")
	l.now = l.now.Add(2 * time.Second)
	reply := "from=outside src=192.0.2.1 dst=10.0.0.1 src_port=53 dst_port=40000"
	for range 2 {
		a, text := l.ask(t, reply)
		if !a.Passes || a.Rule != "dns" || a.Flow == nil || a.Flow.Idle != 2 || a.FastPath != nil || a.Limits != nil || a.Generation != 1 {
			t.Errorf("%+v", a)
		}
		hold(t, text, "accept: it belongs to a flow that rule \"dns\" (fw.toml:4) accepted\n", "flow: UNREPLIED, started from inside 2.0s ago, idle for 2.0s, expires in 28s, 1 packet and 0 in reply", "policy generation 1")
	}
	a, text := l.ask(t, "dst_port=53")
	if want := []Limit{{"dns", 4, "10/s", 10}}; a.Passes || a.Flow != nil || !reflect.DeepEqual(a.Limits, want) {
		t.Errorf("%+v", a)
	}
	hold(t, text, "limit of rule \"dns\" (fw.toml:4): 10/s, 10 left now\n")
	_, text = l.ask(t, strings.Replace(reply, "=53", "=54", 1))
	hold(t, text, "drop: no rule matches", "it belongs to no known flow")
	policy := *l.config.Policy
	policy.Rules = nil
	l.Reload(&policy)
	a, text = l.ask(t, reply)
	if a.Passes || a.Reason != "flow_denied" || a.Generation != 2 {
		t.Errorf("%+v", a)
	}
	hold(t, text, "drop: it belongs to a flow that policy.default (fw.toml) denies since a reload", "flow: ")
}

// TestAskLiveNotes checks the notes about flows, in particular that the flow of an ICMP query
// is not looked up.
func TestAskLiveNotes(t *testing.T) {
	const note = "its flow is not looked up, because the ICMP identifier is not given; see \"fragwall flows --proto icmp\""
	for _, tt := range []struct {
		name, config, question string
		fast                   wire.FastPath
		want                   []string
	}{
		{"accepted by a rule", "policy.stateful = true\n" + three, "protocol=icmp", nil, []string{note}},
		{"a reply that no rule accepts", "policy.stateful = true\n" + three, "from=outside protocol=icmp icmp_type=0", nil, []string{note}},
		{"an ICMP error", "policy.stateful = true\n" + three, "from=outside protocol=icmp icmp_type=3", nil, []string{unlessFlow}},
		{"a protocol without ports", "policy.stateful = true\n" + three, "protocol=igmp", nil, []string{"it belongs to no known flow (policy.stateful)"}},
		{"stateless with a fast path", three, "protocol=icmp", &boxtest.FastPath{}, []string{"its fast path entry is not looked up, because the ICMP identifier is not given"}},
		{"stateless without", three, "protocol=icmp", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, text := newLive(t, tt.config, tt.fast).ask(t, tt.question)
			if !reflect.DeepEqual(a.Notes, tt.want) {
				t.Errorf("got %q, want %q\n%s", a.Notes, tt.want, text)
			}
		})
	}
}

// TestAskLiveOfFastPath checks that the answer has the entry for the direction in question,
// with a stateful and a stateless policy.
func TestAskLiveOfFastPath(t *testing.T) {
	for _, state := range []string{"", "policy.stateful = true\n"} {
		f := &fastPath{FastPath: &boxtest.FastPath{}, from: verdict.Inside}
		if !f.key.SetFast(datagram(t, "src_port=7 dst_port=53"), false) {
			t.Fatal("no key")
		}
		l := newLive(t, state+three, f)
		l.now = l.now.Add(10 * time.Second)
		f.entry = wire.FastEntry{Action: verdict.Accept, Rule: 1, Whole: true, Frames: 3, Bytes: 300, Seen: 8*time.Second + 400}
		a, text := l.ask(t, "src_port=7 dst_port=53")
		if want := (FastPath{Verdict: "accept", Rule: "dns", Line: a.Line, Whole: true, Frames: 3, Bytes: 300, Idle: 2}); a.FastPath == nil || *a.FastPath != want {
			t.Errorf("%+v, want %+v", a.FastPath, want)
		}
		hold(t, text, "  fast path: the kernel accepts its whole packets, 3 frames so far, the last 2.0s ago\n")

		f.entry = wire.FastEntry{Action: verdict.Drop, Reason: verdict.PolicyDefault, Whole: true, Fragments: true}
		a, text = l.ask(t, "src_port=7 dst_port=53")
		b, err := json.Marshal(a.FastPath)
		if want := `{"verdict":"drop","reason":"policy_default","whole":true,"fragments":true,"frames":0,"bytes":0}`; err != nil || string(b) != want {
			t.Errorf("%s, %v, want %s", b, err, want)
		}
		hold(t, text, "  fast path: the kernel drops its whole packets and fragments, 0 frames so far\n")

		if a, text := l.ask(t, "from=outside src=192.0.2.1 dst=10.0.0.1 src_port=53 dst_port=7"); a.FastPath != nil || strings.Contains(text, "fast path") {
			t.Errorf("the other direction: %+v\n%s", a.FastPath, text)
		}
	}
}
