package listing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"fragwall/cmd/fragwall/internal/selector"
	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// box is a wire without devices.
type box struct {
	testing.TB
	*Lister
	bump *wire.Bump
	now  time.Time
}

func newBox(t testing.TB, p *filter.Policy) *box {
	b := &box{TB: t, now: time.Unix(1000, 0)}
	b.bump = wire.New(wire.Config{Policy: p, Now: func() time.Time { return b.now }})
	b.Lister = New(b.bump)
	return b
}

// stateful accepts what the inside originates: DNS by one rule, and everything else by another.
func stateful() *filter.Policy {
	inside := verdict.Inside
	return &filter.Policy{Stateful: true, Rules: []filter.Rule{
		{Name: "dns", Line: 7, Action: verdict.Accept, From: &inside, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53})},
		{Name: "all", Line: 12, Action: verdict.Accept, From: &inside},
	}}
}

// pass expects the policy to accept a datagram with size bytes of payload.
func (b *box) pass(from verdict.Side, protocol uint8, src, dst string, size int) {
	b.Helper()
	source, destination := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	d := packettest.UDP(source, destination, packettest.Body(size))
	if protocol != packet.ProtocolUDP {
		d = packettest.Datagram{Src: source.Addr(), Dst: destination.Addr(), Protocol: protocol, Payload: packettest.Body(size)}
	}
	frame := d.Frame()
	p := new(packet.Parsed)
	if why := p.Decode(frame); why != verdict.Passed {
		b.Fatal(why)
	}
	v := &packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}
	if v := b.bump.Policy().Judge(v, b.bump.Elapsed); v.Action != verdict.Accept {
		b.Fatal(v)
	}
}

func (b *box) flows(q Query) (flows []Flow) {
	b.Helper()
	if err := b.Flows(b.Context(), q, func(f *Flow) error { flows = append(flows, *f); return nil }); err != nil {
		b.Fatal(err)
	}
	return flows
}

// TestFlowRecord lists one flow of each kind.
func TestFlowRecord(t *testing.T) {
	b := newBox(t, stateful())
	b.pass(verdict.Inside, packet.ProtocolUDP, "10.0.0.1:40000", "192.0.2.53:53", 40)
	b.now = b.now.Add(1500 * time.Millisecond)
	b.pass(verdict.Outside, packet.ProtocolUDP, "192.0.2.53:53", "10.0.0.1:40000", 400)
	b.now = b.now.Add(250 * time.Millisecond)
	want := `{"from":"inside","protocol":"udp","src":"10.0.0.1","sport":40000,"dst":"192.0.2.53","dport":53,"state":"SEEN_REPLY","replied":true,"assured":false,` +
		`"age_seconds":1.75,"idle_seconds":0.25,"expires_seconds":29.75,"original_packets":1,"original_bytes":68,"reply_packets":1,"reply_bytes":428,"rule":"dns","line":7,"fast_path":false}`
	if got := b.flows(Query{}); len(got) != 1 || encode(t, got[0]) != want {
		t.Errorf("%s\nwant\n%s", encode(t, got), want)
	}
	b.pass(verdict.Inside, 50, "[2001:db8::1]:0", "[2001:db8:1::1]:0", 100)
	want = `{"from":"inside","protocol":"esp","src":"2001:db8::1","dst":"2001:db8:1::1","state":"UNREPLIED","replied":false,"assured":false,` +
		`"age_seconds":0,"idle_seconds":0,"expires_seconds":600,"original_packets":1,"original_bytes":140,"reply_packets":0,"reply_bytes":0,"rule":"all","line":12,"fast_path":false}`
	if got := b.flows(Query{Selector: selector.Selector{"proto": "esp"}}); len(got) != 1 || encode(t, got[0]) != want {
		t.Errorf("%s\nwant\n%s", encode(t, got), want)
	}
	denied := stateful()
	denied.Rules = denied.Rules[1:]
	denied.Rules[0].Action = verdict.Drop
	b.bump.Reload(denied)
	for _, f := range b.flows(Query{}) {
		if !f.Denied || f.Rule != "all" {
			t.Errorf("%s", encode(t, f))
		}
	}
}

func encode(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// several returns a box with n flows of different sizes and ages.
func several(t testing.TB, n int) *box {
	b := newBox(t, stateful())
	for i := range n {
		b.pass(verdict.Inside, packet.ProtocolUDP, fmt.Sprintf("10.0.%d.%d:40000", i/256, i%256), fmt.Sprintf("192.0.2.1:%d", 1000+i), 8+i*37%n)
		b.now = b.now.Add(time.Millisecond)
	}
	return b
}

func TestFlowOrder(t *testing.T) {
	const n = 1000
	b := several(t, n)
	all := b.flows(Query{})
	if len(all) != n {
		t.Fatalf("%d flows", len(all))
	}
	for order, of := range map[Order]func(Flow) float64{
		ByBytes:   func(f Flow) float64 { return float64(f.OriginalBytes + f.ReplyBytes) },
		ByPackets: func(f Flow) float64 { return float64(f.OriginalPackets + f.ReplyPackets) },
		ByAge:     func(f Flow) float64 { return f.Age },
		ByIdle:    func(f Flow) float64 { return f.Idle },
	} {
		var want []float64
		for _, f := range all {
			want = append(want, of(f))
		}
		slices.Sort(want)
		slices.Reverse(want)
		top, matched, err := b.TopFlows(t.Context(), Query{Sort: order, Limit: 10})
		if err != nil || matched != n {
			t.Errorf("%d of %d, %v", len(top), matched, err)
		}
		q := Query{Sort: order, Limit: 10}
		for _, got := range [][]Flow{b.flows(q), top, q.Sorted(slices.Clone(all))} {
			var values []float64
			for _, f := range got {
				values = append(values, of(f))
			}
			if !slices.Equal(values, want[:10]) {
				t.Errorf("%s: %v, want %v", order, values, want[:10])
			}
		}
	}
	if got := b.flows(Query{Limit: 7}); len(got) != 7 {
		t.Errorf("%d flows", len(got))
	}
	if got := b.flows(Query{Sort: ByBytes, Limit: maxSorted + 1}); len(got) != n {
		t.Errorf("%d flows", len(got))
	}
	if n, err := b.CountFlows(t.Context(), Query{Selector: selector.Selector{"host": "10.0.1.0/24"}}); n != 256 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := b.DeleteFlows(t.Context(), Query{Selector: selector.Selector{"host": "10.0.1.0/24"}}); n != 256 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := b.CountFlows(t.Context(), Query{}); n != 1000-256 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestPace checks that a walk waits for the limiter, and ends when the client disconnects.
func TestPace(t *testing.T) {
	b := several(t, 1000)
	b.pace.SetLimit(1e-9)
	b.pace.SetBurst(paceStep)
	if !b.pace.AllowN(time.Now(), paceStep) {
		t.Fatal("the limiter has too few tokens")
	}
	ctx, gone := context.WithCancel(t.Context())
	gone()
	if n, err := b.CountFlows(ctx, Query{}); err == nil {
		t.Errorf("%d flows", n)
	}
	if b.pace.Tokens() >= 1 {
		t.Errorf("%v tokens are left, want less than 1", b.pace.Tokens())
	}
}

func TestQueryMistakes(t *testing.T) {
	for want, q := range map[string]Query{
		`--sort: "size"`: {Sort: "size"},
		"-n: -1":         {Limit: -1},
		"--proto":        {Selector: selector.Selector{"proto": "nosuch"}},
	} {
		if err := q.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	q := Query{Sort: ByAge, Limit: 3, Selector: selector.Selector{"proto": "udp"}}
	if err := q.Check(); err != nil {
		t.Error(err)
	}
	b := newBox(t, stateful())
	q.Selector = selector.Selector{"no": "such"}
	_, _, topErr := b.TopFlows(t.Context(), q)
	_, deleteErr := b.DeleteFlows(t.Context(), q)
	for _, err := range []error{topErr, deleteErr, b.Flows(t.Context(), q, nil)} {
		if err == nil {
			t.Error("an invalid selector was accepted")
		}
	}
	stop := errors.New("stop")
	b.pass(verdict.Inside, packet.ProtocolUDP, "10.0.0.1:1", "192.0.2.1:1", 8)
	for _, q := range []Query{{}, {Sort: ByAge, Limit: 2}} {
		if err := b.Flows(t.Context(), q, func(*Flow) error { return stop }); !errors.Is(err, stop) {
			t.Error(err)
		}
	}
}

// anyFlow draws a record with arbitrary field values.
func anyFlow(t *rapid.T) (f Flow) {
	r := reflect.ValueOf(&f).Elem()
	for i := range r.NumField() {
		name := r.Type().Field(i).Name
		switch v := r.Field(i).Addr().Interface().(type) {
		case *string:
			*v = rapid.String().Draw(t, name)
		case *[]uint16:
			*v = rapid.SampledFrom([][]uint16{nil, {10}, {10, 20}}).Draw(t, name)
		case *netip.Addr:
			*v = netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"}).Draw(t, name))
		case **uint16:
			*v = rapid.Ptr(rapid.Uint16(), true).Draw(t, name)
		case **uint8:
			*v = rapid.Ptr(rapid.Uint8(), true).Draw(t, name)
		case *bool:
			*v = rapid.Bool().Draw(t, name)
		case *float64:
			*v = rapid.Float64().Draw(t, name)
		case *uint64:
			*v = rapid.Uint64().Draw(t, name)
		case *int:
			*v = rapid.IntRange(0, 1<<40).Draw(t, name)
		default:
			t.Fatalf("%s has a type that the test does not know", name)
		}
	}
	return f
}

// TestBatch checks that decoded flows are equal to the encoded ones.
func TestBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flows := rapid.SliceOfN(rapid.Custom(anyFlow), 1, 20).Draw(t, "flows")
		var got []Flow
		var r Reader
		b := &Batch{Send: func(batch []byte) error {
			return r.Read(batch, func(f *Flow) error { got = append(got, *f); return nil })
		}}
		for i := range flows {
			if err := b.Add(&flows[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(b.Flush(), b.Flush()); err != nil || !reflect.DeepEqual(got, flows) {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}

// TestAppendJSON compares AppendJSON with the standard library.
func TestAppendJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyFlow(t)
		want, err := json.Marshal(&f)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.AppendJSON([]byte("x"))[1:]; string(got) != string(want) {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

func FuzzReader(f *testing.F) {
	var e encoder
	flow := Flow{Protocol: "udp", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("2001:db8::1"), SrcPort: number16(53), VLANs: []uint16{10}, Rule: "dns"}
	flow.code(&e)
	f.Add(e.b)
	f.Add(e.b[:len(e.b)-1])
	f.Add([]byte{0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(_ *testing.T, batch []byte) {
		var r Reader
		_ = r.Read(batch, func(*Flow) error { return nil })
	})
}

// TestFlowTable checks the table, also with more rows than are collected.
func TestFlowTable(t *testing.T) {
	flow := Flow{
		From: "inside", Protocol: "tcp", Src: netip.MustParseAddr("10.0.0.1"), SrcPort: number16(40000), Dst: netip.MustParseAddr("2001:db8::1"), DstPort: number16(443),
		State: "ESTABLISHED", Replied: true, Assured: true, Age: 3.25, Idle: 0, Expires: 431999, OriginalPackets: 12, OriginalBytes: 3456, ReplyPackets: 1, ReplyBytes: 40, Rule: "web", FastPath: true,
	}
	ping := Flow{From: "outside", VLANs: []uint16{10, 20}, Protocol: "icmp", Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("10.0.0.1"), ICMPType: number8(8), ICMPCode: number8(0), ICMPID: number16(29299), State: "UNREPLIED", Denied: true, Age: 75, Idle: 12, Expires: 3700}
	var text strings.Builder
	table := NewFlowTable(&text)
	for _, f := range []*Flow{&flow, &ping} {
		if err := table.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `PROTO  FROM     SOURCE          DESTINATION               VLAN   STATE                  AGE  IDLE  EXPIRES  PACKETS  BYTES  REPLY PACKETS  REPLY BYTES  FAST  RULE
tcp    inside   10.0.0.1:40000  [2001:db8::1]:443         -      ESTABLISHED,ASSURED   3.2s  0.0s    4d23h       12   3456              1           40  yes   web
icmp   outside  192.0.2.1       10.0.0.1,type=8,id=29299  10,20  UNREPLIED,DENIED     1m15s   12s     1h1m        0      0              0            0  no    -
`
	if text.String() != want {
		t.Errorf("\n%s\nwant\n%s", &text, want)
	}
	text.Reset()
	table = NewFlowTable(&text)
	for range 2*tableRows + 1 {
		if err := table.Add(&flow); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Flush(); err != nil || strings.Count(text.String(), "\n") != 2*tableRows+2 || strings.Count(text.String(), "PROTO") != 1 {
		t.Errorf("%d lines, %v", strings.Count(text.String(), "\n"), err)
	}
}

// cpuTime returns the CPU time that this process has used. Unlike elapsed time, it does not
// depend on other processes.
func cpuTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkFlows lists a million flows as the command does, without the socket.
func BenchmarkFlows(b *testing.B) {
	box := newBox(b, stateful())
	frame := packettest.UDP(netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.1:53"), packettest.Body(8)).Frame()
	p := new(packet.Parsed)
	p.Decode(frame)
	v := &packet.View{Parsed: p, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper, Verified: true}
	const flows = 1_000_000
	for i := range flows {
		p.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		box.bump.Policy().Judge(v, box.bump.Elapsed)
	}
	for name, write := range map[string]func() (func(*Flow) error, func() error){
		"table": func() (func(*Flow) error, func() error) { t := NewFlowTable(io.Discard); return t.Add, t.Flush },
		"json": func() (func(*Flow) error, func() error) {
			var line []byte
			return func(f *Flow) error { line = f.AppendJSON(line[:0]); return nil }, func() error { return nil }
		},
		"none": func() (func(*Flow) error, func() error) {
			return func(*Flow) error { return nil }, func() error { return nil }
		},
	} {
		b.Run(name, func(b *testing.B) {
			box.pace.SetLimit(1e12)
			begun := cpuTime(b)
			defer func() { b.ReportMetric((cpuTime(b)-begun).Seconds()/float64(b.N), "cpu-s/op") }()
			for b.Loop() {
				add, flush := write()
				var r Reader
				batch := &Batch{Send: func(sent []byte) error { return r.Read(sent, add) }}
				if err := errors.Join(box.Flows(b.Context(), Query{}, batch.Add), batch.Flush(), flush()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("box", func(b *testing.B) {
		for b.Loop() {
			batch := &Batch{Send: func([]byte) error { return nil }}
			_ = box.Flows(b.Context(), Query{}, batch.Add)
		}
	})
}
