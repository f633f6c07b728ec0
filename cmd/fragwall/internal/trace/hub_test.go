package trace

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/exit"
	"fragwall/cmd/fragwall/internal/record"
	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

var (
	client = netip.MustParseAddrPort("10.0.0.1:40000")
	server = netip.MustParseAddrPort("192.0.2.1:5300")
)

// noted is the next observer. It counts calls of Wants and Decided, and wants logged decisions.
type noted struct{ asked, told atomic.Int64 }

func (n *noted) Wants(_ *filter.Table, v filter.Verdict, _ *packet.Parsed) wire.Reporter {
	if n.asked.Add(1); v.Has(filter.Logged) {
		return n
	}
	return nil
}
func (n *noted) Decided(*wire.Decision) { n.told.Add(1) }

// policy accepts one port and logs it, and denies another.
func policy() *filter.Policy {
	port := func(n uint16) filter.Set[uint16] { return filter.NewSet(filter.Range[uint16]{Lo: n, Hi: n}) }
	return &filter.Policy{Rules: []filter.Rule{
		{Name: "service", Line: 7, Action: verdict.Accept, DstPorts: port(5300), Log: true},
		{Name: "no", Line: 9, Action: verdict.Reject, DstPorts: port(5301)},
	}}
}

// limits are the limits of incomplete datagrams.
func limits() stack.Options {
	return stack.Options{Memory: 1 << 20, MaxFragments: 64, MaxDatagrams: 64, TimeoutIPv4: time.Second, TimeoutIPv6: time.Second}
}

// newStepper returns a wire with an observer, and a hub between them.
func newStepper(t testing.TB, other *noted) (*wire.Stepper, *Hub) {
	t.Helper()
	end := wire.SideConfig{Lanes: []tun.Lane{tuntest.Discard}, MTU: 1500}
	s := wire.NewStepper(wire.Config{Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: policy(), Mode: packet.ModeReassemble, Fragments: limits(), Observer: other})
	t.Cleanup(s.Close)
	return s, NewHub(s.Bump, other, func(func(*flow.Key) bool) {})
}

// traffic forwards frames of each kind. The last one is a minute later, so that the incomplete
// datagrams have expired.
func traffic(s *wire.Stepper, began time.Time) {
	udp := func(port uint16, id uint32, size int) packettest.Datagram {
		d := packettest.UDP(client, netip.AddrPortFrom(server.Addr(), port), packettest.Body(size))
		d.ID = id
		return d
	}
	send := func(from verdict.Side, frames ...[]byte) {
		for _, f := range frames {
			s.Forward(from, tun.Frame{Data: f}, began)
		}
	}
	send(verdict.Inside, udp(5300, 0, 10).Frame(), udp(5301, 0, 10).Frame())
	send(verdict.Outside, udp(5302, 0, 10).Frame(), []byte{1, 2, 3})
	send(verdict.Inside, udp(5300, 1, 3000).Fragments(1480)...)
	overlap := udp(5300, 2, 3000)
	send(verdict.Inside, overlap.Fragments(1480)[0], overlap.Fragment(8, overlap.Payload[8:16], true))
	send(verdict.Inside, udp(5300, 3, 3000).Fragments(1480)[1])
	s.Forward(verdict.Inside, tun.Frame{Data: udp(5303, 0, 1).Frame()}, began.Add(time.Minute))
}

// lines are the lines that a capture prints for traffic, without the time.
var lines = []string{
	`inside IP 10.0.0.1.40000 > 192.0.2.1.5300: UDP, length 10 [accept: rule "service", line 7]`,
	`inside IP 10.0.0.1.40000 > 192.0.2.1.5301: UDP, length 10 [reject: policy_rule: rule "no", line 9]`,
	`outside IP 10.0.0.1.40000 > 192.0.2.1.5302: UDP, length 10 [drop: policy_default]`,
	`outside no Ethernet frame, length 3 [drop: ethernet_truncated]`,
	`inside IP 10.0.0.1.40000 > 192.0.2.1.5300: UDP, length 3000 (frag 1:1480@0+) [accept: rule "service", line 7]`,
	`inside IP 10.0.0.1 > 192.0.2.1: ip-proto-17 (frag 1:1480@1480+) [accept: rule "service", line 7]`,
	`inside IP 10.0.0.1 > 192.0.2.1: ip-proto-17 (frag 1:48@2960) [accept: rule "service", line 7]`,
	`inside IP 10.0.0.1 > 192.0.2.1: ip-proto-17 (frag 2:8@8+) [drop: fragment_overlap]`,
	`inside IP 10.0.0.1.40000 > 192.0.2.1.5300: UDP, length 3000 (frag 2:1480@0+) [drop: fragment_overlap]`,
	`inside IP 10.0.0.1 > 192.0.2.1: ip-proto-17 (frag 3:1480@1480+) [drop: fragment_timeout, missing bytes 0-1479 2960-]`,
	`inside IP 10.0.0.1.40000 > 192.0.2.1.5303: UDP, length 1 [drop: policy_default]`,
}

// serve serves the captures of a hub on a control socket.
func serve(t *testing.T, h *Hub) control.Instance {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		l.Serve(ctx, control.Service{Handlers: control.Handlers{control.RequestFile: func() any { return control.Outcome{} }}, Streams: control.Streams{
			control.RequestCapture: func(ctx context.Context, argument json.RawMessage, to *control.Stream) error {
				var r Request
				if err := json.Unmarshal(argument, &r); err != nil {
					return err
				}
				return h.Serve(ctx, &r, to)
			},
		}})
	})
	t.Cleanup(func() { stop(); serving.Wait() })
	return control.Instance{Socket: path}
}

// captured returns the output of a capture of traffic. It ends at the limit of o.
func captured(t *testing.T, r Request, o *Output) (text string) {
	t.Helper()
	other := &noted{}
	s, h := newStepper(t, other)
	instance := serve(t, h)
	var b strings.Builder
	if r.SnapLength > 0 {
		o.Text = &b
	}
	if r.Records {
		o.Records = &b
	}
	d, begun := Decoder{Sink: o}, false
	err := instance.Follow(t.Context(), control.RequestCapture, r, func(items []byte) error {
		if !begun {
			begun = true
			traffic(s, time.Unix(1, 0))
		}
		return d.Decode(items)
	})
	if !errors.Is(err, ErrEnough) || d.Missed != 0 {
		t.Fatalf("%v, %d missed\n%s", err, d.Missed, &b)
	}
	if n := other.asked.Load(); n == 0 || other.told.Load() != 2 {
		t.Errorf("the next observer was asked about %d decisions, and received %d; want 2", n, other.told.Load())
	}
	return b.String()
}

// TestText checks which frames of the traffic each request selects.
func TestText(t *testing.T) {
	at := func(indexes ...int) (want []string) {
		for _, i := range indexes {
			want = append(want, lines[i])
		}
		return want
	}
	for name, tt := range map[string]struct {
		request Request
		want    []string
	}{
		"all":              {Request{}, lines},
		"forwarded":        {Request{Forwarded: true}, at(0, 4, 5, 6)},
		"dropped":          {Request{Dropped: true}, at(1, 2, 3, 7, 8, 9, 10)},
		"reason":           {Request{Reasons: []string{"fragment_timeout", "policy_rule"}}, at(1, 9)},
		"reason, dropped":  {Request{Dropped: true, Reasons: []string{"fragment_overlap"}}, at(7, 8)},
		"rule":             {Request{Rule: "service"}, at(0, 4, 5, 6)},
		"rule that denies": {Request{Rule: "no"}, at(1)},
		"port":             {Request{Selector: selector.Selector{"port": "5302"}}, at(2)},
		"side":             {Request{Selector: selector.Selector{"from": "outside"}}, at(2, 3)},
		"host and dropped": {Request{Selector: selector.Selector{"host": "10.0.0.1", "from": "inside"}, Dropped: true}, at(1, 7, 8, 9, 10)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, snap := range []int{100, MaxSnapLength} {
				tt.request.SnapLength = snap
				var got []string
				for line := range strings.Lines(captured(t, tt.request, &Output{Most: len(tt.want)})) {
					_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ")
					got = append(got, line)
				}
				want := slices.Clone(tt.want)
				if !slices.Equal(sorted(got), sorted(want)) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// TestRecords checks that each decision is sent once.
func TestRecords(t *testing.T) {
	text := captured(t, Request{Records: true}, &Output{Most: 8})
	var reasons []string
	for line := range strings.Lines(text) {
		var d record.Decision
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		reasons = append(reasons, d.Verdict+" "+d.Reason)
	}
	want := []string{"accept ", "accept ", "drop ethernet_truncated", "drop fragment_overlap", "drop fragment_overlap", "drop fragment_timeout", "drop policy_default", "reject policy_rule"}
	if !slices.Equal(sorted(reasons), want) {
		t.Errorf("%q", reasons)
	}
}

// TestRefused checks the errors of invalid requests.
func TestRefused(t *testing.T) {
	_, h := newStepper(t, &noted{})
	instance := serve(t, h)
	for want, r := range map[string]Request{
		`no rule "none"`:            {Rule: "none"},
		"want 0 to 262144":          {SnapLength: MaxSnapLength + 1},
		"did you mean policy_rule?": {Reasons: []string{"rule"}},
		"is not a drop reason":      {Reasons: []string{"passed"}},
		"is the opposite of":        {Forwarded: true, Dropped: true},
		"--port":                    {Selector: selector.Selector{"port": "x"}},
	} {
		err := instance.Follow(t.Context(), control.RequestCapture, r, func([]byte) error { return nil })
		if usage := (*exit.UsageError)(nil); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r, err, want)
		}
	}
}

// TestObserveOnlyForClients checks that, without clients, the next observer observes the wire alone and
// no flow is kept from the fast path.
func TestObserveOnlyForClients(t *testing.T) {
	var observers []wire.Observer
	var watched func(*flow.Key) bool
	h := &Hub{
		next:    &noted{},
		observe: func(o wire.Observer) { observers = append(observers, o) },
		watch:   func(match func(*flow.Key) bool) { watched = match },
	}
	h.sessions.Store(new([]*session))
	looks := func(s selector.Selector) *session {
		m, err := (&Request{Selector: s}).matcher()
		if err != nil {
			t.Fatal(err)
		}
		one := &session{matcher: m}
		h.add(one)
		return one
	}
	key := func(port uint16) *flow.Key {
		var p packet.Parsed
		p.Decode(packettest.UDP(client, netip.AddrPortFrom(server.Addr(), port), nil).Frame())
		var k flow.Key
		if !k.SetFast(&packet.View{Parsed: &p}, false) {
			t.Fatal("no key")
		}
		return &k
	}
	one := looks(selector.Selector{"sport": "53"}) // matches the replies of the flow
	two := looks(selector.Selector{"dport": "54", "src": "10.0.0.0/8", "vlan": "none"})
	if !watched(key(53)) || !watched(key(54)) || watched(key(55)) {
		t.Errorf("watched: %v, %v, %v", watched(key(53)), watched(key(54)), watched(key(55)))
	}
	h.remove(one)
	if watched(key(53)) || !watched(key(54)) {
		t.Error("a flow without a client is still watched")
	}
	if h.remove(two); watched != nil {
		t.Error("flows are watched without a client")
	}
	looks(selector.Selector{"vlan": "10"})
	other := *key(53)
	other.VLANs = 0x81000014 << 32
	if watched(&other) || !watched(key(53)) {
		t.Errorf("of another VLAN: %v, of any: %v", watched(&other), watched(key(53)))
	}
	if want := []wire.Observer{h, h.next, h}; !slices.Equal(observers, want) {
		t.Errorf("%v, want %v", observers, want)
	}
}

// TestShed checks that a client receives the number of fragments shed since its capture began,
// if its request may match them.
func TestShed(t *testing.T) {
	for _, tt := range []struct {
		request Request
		want    uint64
	}{
		{Request{}, 5}, {Request{Dropped: true}, 5}, {Request{Dropped: true, Reasons: []string{"fragment_shed"}}, 5},
		{Request{Forwarded: true}, 0}, {Request{Reasons: []string{"policy_rule"}}, 0}, {Request{Rule: "service"}, 0},
	} {
		_, h := newStepper(t, &noted{})
		var shed atomic.Uint64
		shed.Store(100)
		h.shed = func(side verdict.Side) uint64 {
			if side == verdict.Outside {
				return 7
			}
			return shed.Load()
		}
		d, enough := Decoder{Sink: &Output{}}, errors.New("enough")
		begun := false
		err := serve(t, h).Follow(t.Context(), control.RequestCapture, tt.request, func(items []byte) error {
			if err := d.Decode(items); err != nil {
				return err
			}
			if begun || !tt.request.wantsShed() {
				return enough
			}
			begun = true
			shed.Add(5)
			return nil
		})
		if !errors.Is(err, enough) || d.Shed != tt.want || d.Missed != 0 {
			t.Errorf("%+v: %d shed, %d missed, %v; want %d", tt.request, d.Shed, d.Missed, err, tt.want)
		}
	}
}

// TestDecodeBoundsFrames checks that a frame is malformed if its length on the wire is less
// than the number of captured bytes, or more than MaxSnapLength.
func TestDecodeBoundsFrames(t *testing.T) {
	for _, length := range []uint32{1, MaxSnapLength + 1, math.MaxUint32} {
		items := binary.BigEndian.AppendUint32([]byte{itemFrame}, length)
		items = append(binary.BigEndian.AppendUint32(items, 2), 1, 2)
		d := Decoder{Sink: &Output{Text: &bytes.Buffer{}}}
		if err := d.Decode(items); !errors.Is(err, errMalformed) {
			t.Errorf("length %d: %v, want %v", length, err, errMalformed)
		}
	}
}

// FuzzDecode decodes arbitrary items.
func FuzzDecode(f *testing.F) {
	w := writer{ring: newRing(0), records: true, encoder: record.NewEncoder(), shed: func() uint64 { return 9 }}
	w.appendMissed()
	w.appendCounts()
	w.appendDecision(&record.Decision{From: "outside", Verdict: "drop", Reason: "fragment_overlap"})
	w.items = append(w.items, itemFrame, 0, 0, 0, 9, 0, 0, 0, 2, 1, 2)
	f.Add(w.items)
	f.Fuzz(func(t *testing.T, items []byte) {
		d := Decoder{Sink: &Output{Text: &bytes.Buffer{}, Records: &bytes.Buffer{}}}
		if err := d.Decode(items); err != nil && !errors.Is(err, errMalformed) {
			t.Error(err)
		}
		if bytes.HasPrefix(items, w.items) && len(items) == len(w.items) && d.last.Comment != "drop: fragment_overlap" {
			t.Errorf("%+v", d.last)
		}
	})
}

// BenchmarkDrops measures the drop of a small packet without a client, with a client that
// reads, and with one that does not.
func BenchmarkDrops(b *testing.B) {
	frame := packettest.UDP(client, netip.AddrPortFrom(server.Addr(), 9), packettest.Body(22)).Frame()
	for _, name := range []string{"no client", "taken", "not taken"} {
		b.Run(name, func(b *testing.B) {
			s, h := newStepper(b, &noted{})
			m, err := (&Request{Dropped: true}).matcher()
			if err != nil {
				b.Fatal(err)
			}
			one := &session{m, newRing(256)}
			if name != "no client" {
				h.add(one)
			}
			for b.Loop() {
				s.Forward(verdict.Inside, tun.Frame{Data: frame}, time.Unix(1, 0))
				if name == "taken" {
					one.ring.release()
				}
			}
		})
	}
}
