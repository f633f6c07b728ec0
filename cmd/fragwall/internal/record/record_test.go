package record

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

// text draws valid UTF-8 with characters that JSON escapes.
var text = rapid.StringOf(rapid.RuneFrom([]rune("a \"\\\x00\n\u2028ü日<&")))

// optional draws a value that may be absent.
func optional[T any](of *rapid.Generator[T]) *rapid.Generator[Optional[T]] {
	return rapid.Custom(func(t *rapid.T) (o Optional[T]) {
		if rapid.Bool().Draw(t, "set") {
			o = Some(of.Draw(t, "value"))
		}
		return o
	})
}

// address draws an address, or an invalid one.
var address = rapid.Custom(func(t *rapid.T) netip.Addr {
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")[:rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "size")])
	return a
})

// anyDecision draws a record with arbitrary field values.
var anyDecision = rapid.Custom(func(t *rapid.T) Decision {
	amount := rapid.IntRange(0, 1<<20)
	return Decision{
		Time: time.Unix(0, rapid.Int64Min(0).Draw(t, "time")).UTC(), From: text.Draw(t, "from"),
		Verdict: text.Draw(t, "verdict"), Reason: text.Draw(t, "reason"), Rule: text.Draw(t, "rule"), Line: amount.Draw(t, "line"), OverLimit: text.Draw(t, "over"),
		VLANs: rapid.SampledFrom([][]uint16{nil, {1}, {10, 20}}).Draw(t, "vlans"), EtherType: text.Draw(t, "ethertype"), Protocol: text.Draw(t, "protocol"),
		Src: address.Draw(t, "src"), SrcPort: optional(rapid.Uint16()).Draw(t, "sport"), Dst: address.Draw(t, "dst"), DstPort: optional(rapid.Uint16()).Draw(t, "dport"),
		ICMPType: optional(rapid.Uint8()).Draw(t, "type"), ICMPCode: optional(rapid.Uint8()).Draw(t, "code"), Fragments: amount.Draw(t, "fragments"),
		Identification: optional(rapid.Uint32()).Draw(t, "id"), Offset: optional(amount).Draw(t, "offset"), MoreFragments: optional(rapid.Bool()).Draw(t, "more"),
		Missing: rapid.SampledFrom([][]string{nil, {"0-7"}, {"8-15", "24-"}}).Draw(t, "missing"), Bytes: amount.Draw(t, "bytes"), Length: amount.Draw(t, "length"), MTU: amount.Draw(t, "mtu"),
	}
})

// TestRoundTrip checks that the JSON of a record decodes to the same record.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Event{Kind: text.Draw(t, "kind"), Decision: anyDecision.Draw(t, "decision"), Background: text.Draw(t, "background"), Suppressed: rapid.Uint64().Draw(t, "suppressed")}
		roundTrip(t, e)
		roundTrip(t, e.Decision)
		roundTrip(t, Event{Kind: "link", Decision: Decision{Time: e.Time, From: e.From}, Device: text.Draw(t, "device"), Link: "up"})
	})
}

func roundTrip[T any](t *rapid.T, record T) {
	line, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	var again T
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&again); err != nil || !reflect.DeepEqual(again, record) {
		t.Fatalf("%v\n%s\nwas decoded as\n%+v\nwant\n%+v", err, line, again, record)
	}
}

// TestOrder checks that the fields of a decision are encoded in the order of the struct, and
// that an empty decision has only those that always apply.
func TestOrder(t *testing.T) {
	full := Decision{
		Time: time.Unix(0, 1), From: "inside", Verdict: "drop", Reason: "r", Rule: "r", Line: 1, OverLimit: "o", VLANs: []uint16{1}, EtherType: "e", Protocol: "p",
		Src: netip.IPv4Unspecified(), SrcPort: Some[uint16](0), Dst: netip.IPv6Unspecified(), DstPort: Some[uint16](0), ICMPType: Some[uint8](0), ICMPCode: Some[uint8](0),
		Fragments: 1, Identification: Some[uint32](0), Offset: Some(0), MoreFragments: Some(false), Missing: []string{"0-"}, Bytes: 1, Length: 1, MTU: 1,
	}
	var all, always []string
	for field := range reflect.TypeFor[Decision]().Fields() {
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if all = append(all, name); option == "" {
			always = append(always, name)
		}
	}
	for _, tt := range []struct {
		record Decision
		want   []string
	}{{full, all}, {Decision{}, always}} {
		if got := keys(t, NewEncoder().Encode(&tt.record)); !slices.Equal(got, tt.want) {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	if line := string(NewEncoder().Encode(&full)); !strings.HasPrefix(line, `{"time":"1970-01-01T00:00:00.000000001Z","from":"inside",`) {
		t.Error(line)
	}
}

// keys returns the field names of an object in order.
func keys(t *testing.T, object []byte) (names []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(object))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		switch delim, _ := token.(json.Delim); {
		case delim == '{', delim == '[':
			depth++
		case delim == '}' && depth == 1:
			return names
		case delim == '}', delim == ']':
			depth--
		case depth == 1:
			names = append(names, token.(string))
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatalf("%s: %v", object, err)
			}
		}
	}
}

// asked is an observer that wants every decision and calls itself with it.
type asked func(*wire.Decision)

func (a asked) Wants(*filter.Table, filter.Verdict, *packet.Parsed) wire.Reporter { return a }
func (a asked) Decided(d *wire.Decision)                                          { a(d) }

// TestAllocations checks that the record of a whole packet, and its JSON, allocate nothing.
func TestAllocations(t *testing.T) {
	src, dst := netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("198.51.100.1:53")
	frame := packettest.UDP(src, dst, nil).Frame()
	policy := &filter.Policy{Rules: []filter.Rule{{Name: "dns", Line: 7, Action: verdict.Reject}}}
	end := wire.SideConfig{Lanes: []tun.Lane{tuntest.Discard}, MTU: 1500}
	var kept Decision
	encoder, allocated := NewEncoder(), 0.0
	s := wire.NewStepper(wire.Config{Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: policy, Observer: asked(func(d *wire.Decision) {
		allocated = testing.AllocsPerRun(100, func() {
			kept = Of(d, time.Unix(1, 0))
			encoder.Encode(&kept)
		})
	})})
	defer s.Close()
	s.Forward(verdict.Inside, tun.Frame{Data: frame}, time.Unix(1, 0))
	want := Decision{
		Time: time.Unix(1, 0), From: "inside", Verdict: "reject", Reason: "policy_rule", Rule: "dns", Line: 7, Protocol: "udp",
		Src: src.Addr(), SrcPort: Some(src.Port()), Dst: dst.Addr(), DstPort: Some(dst.Port()), Bytes: len(frame),
	}
	if !reflect.DeepEqual(kept, want) || allocated > 0 {
		t.Errorf("%+v, with %v allocations", kept, allocated)
	}
}

// TestInvalidText checks that a name that is not UTF-8 is encoded with replacement characters.
func TestInvalidText(t *testing.T) {
	d := Decision{Rule: "\xff"}
	if line := NewEncoder().Encode(&d); !json.Valid(line) || !strings.Contains(string(line), `"rule":"\ufffd"`) {
		t.Errorf("%s", line)
	}
}
