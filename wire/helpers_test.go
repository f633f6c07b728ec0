package wire

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/reject"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	client4 = netip.AddrPortFrom(packettest.InsideIPv4, 40000)
	server4 = netip.AddrPortFrom(packettest.OutsideIPv4, 53)
	client6 = netip.AddrPortFrom(packettest.InsideIPv6, 40000)
	server6 = netip.AddrPortFrom(packettest.OutsideIPv6, 53)
)

var families = map[string]struct{ client, server netip.AddrPort }{"ipv4": {client4, server4}, "ipv6": {client6, server6}}

// onlyPort53 accepts datagrams to or from port 53.
func onlyPort53() *filter.Policy {
	port := filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53})
	return &filter.Policy{ARP: verdict.Accept, Rules: []filter.Rule{
		{Name: "requests", Action: verdict.Accept, DstPorts: port},
		{Name: "replies", Action: verdict.Accept, SrcPorts: port},
	}}
}

func acceptAll() *filter.Policy {
	return &filter.Policy{Default: verdict.Accept, ARP: verdict.Accept, NeighborDiscovery: verdict.Accept, NonIP: verdict.Accept}
}

// limits returns the defaults of the configuration.
func limits() stack.Options {
	return stack.Options{TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second,
		Memory: 64 << 20, MaxFragments: 8192, MaxDatagrams: 65536}
}

// tables are the policies of tests that judge datagrams themselves.
var tables sync.Map

// judged returns the verdict on a datagram from the inside.
func judged(policy *filter.Policy, p *packet.Parsed) filter.Verdict {
	table, known := tables.Load(policy)
	if !known {
		table, _ = tables.LoadOrStore(policy, filter.Compile(policy, nil))
	}
	return table.(*filter.Table).Judge(&packet.View{Parsed: p}, func() time.Duration { return 0 })
}

func replyTo(t *testing.T, frame []byte) []byte {
	t.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed {
		t.Fatal(why)
	}
	return reject.Append(nil, frame, &packet.View{Parsed: &p, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}, 1500)
}

// testWire is a wire between two devices in memory.
type testWire struct {
	*testing.T
	*Bump
	ports [verdict.Sides]*tuntest.Port
}

// run starts a wire in reassembly mode.
func run(t *testing.T, policy *filter.Policy, test func(b *testWire)) {
	t.Helper()
	runConfig(t, Config{Policy: policy, Mode: packet.ModeReassemble}, test)
}

// runConfig starts a wire, and stops it at the end of the test, inside the bubble of the test.
// It sets the sides and the limits of the configuration.
func runConfig(t *testing.T, c Config, test func(b *testWire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &testWire{T: t, ports: [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}}
		c.Sides = memorySides(b.ports)
		c.Fragments = limits()
		b.Bump = New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Bump.Run(ctx) }()
		test(b)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the wire ended with error %v", err)
		}
		for side := range verdict.Side(verdict.Sides) {
			if n := b.Counters(side).Waiting; n != 0 {
				t.Errorf("after the end, %d frames from %v are held", n, side)
			}
		}
	})
}

// inEachFamily runs a test with an allowed and a denied datagram of 4,000 bytes in three
// fragments.
func inEachFamily(t *testing.T, c Config, test func(b *testWire, allowed, denied [][]byte)) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			runConfig(t, c, func(b *testWire) {
				allowed := packettest.UDP(f.client, f.server, packettest.Body(4000))
				allowed.ID = 1
				denied := packettest.UDP(f.client, netip.AddrPortFrom(f.server.Addr(), 54), packettest.Body(4000))
				denied.ID = 2
				test(b, allowed.Fragments(1448), denied.Fragments(1448))
			})
		})
	}
}

// memorySides returns the sides of a wire between two devices in memory.
func memorySides(ports [verdict.Sides]*tuntest.Port) [verdict.Sides]SideConfig {
	return sides(ports[0].Lane(ports[1]), ports[1].Lane(ports[0]))
}

// send injects frames on a side and waits until the wire has processed them.
func (b *testWire) send(from verdict.Side, frames ...[]byte) {
	b.ports[from].Inject(frames...)
	synctest.Wait()
}

// expect takes all frames that left for a side, and compares them.
func (b *testWire) expect(to verdict.Side, want ...[]byte) {
	b.Helper()
	gone, cancel := context.WithCancel(b.Context())
	cancel()
	for i := 0; ; i++ {
		got, err := b.ports[to].Next(gone)
		switch {
		case err != nil && i == len(want):
			return
		case err != nil:
			b.Fatalf("%d frames left for %v, want %d", i, to, len(want))
		case i >= len(want):
			b.Fatalf("one frame too many left for %v: % x", to, got.Data)
		case string(got.Data) != string(want[i]):
			b.Fatalf("frame %d for %v is not as it arrived:\n% x\n% x", i, to, got.Data, want[i])
		}
	}
}

// counted compares the counters of a side.
func (b *testWire) counted(from verdict.Side, received, forwarded, waiting uint64, dropped map[verdict.Reason]uint64) {
	b.Helper()
	s := b.Counters(from)
	if s.Received() != received || s.Forwarded != forwarded || s.Waiting != waiting {
		b.Errorf("from %v: received %d, forwarded %d, waiting %d; want %d, %d, %d",
			from, s.Received(), s.Forwarded, s.Waiting, received, forwarded, waiting)
	}
	for r, n := range s.Dropped {
		if n != dropped[verdict.Reason(r)] {
			b.Errorf("from %v: %d dropped for %v, want %d", from, n, verdict.Reason(r), dropped[verdict.Reason(r)])
		}
	}
}

// sides returns the sides of a wire with one lane each, which may be nil.
func sides(inside, outside tun.Lane) [verdict.Sides]SideConfig {
	e := [verdict.Sides]SideConfig{{MTU: 1500}, {MTU: 1500}}
	for side, l := range [verdict.Sides]tun.Lane{inside, outside} {
		if l != nil {
			e[side].Lanes = []tun.Lane{l}
		}
	}
	return e
}

// script is a lane that delivers one batch repeatedly, counts the frames that it is to write,
// and refuses every refuseEach-th of them.
type script struct {
	batch      []tun.Frame
	left       int // batches
	end        error
	written    int
	refuseEach int
	behind     bool
	shed       uint64
	credited   []netip.Addr
}

func (s *script) Name() string { return "script" }

func (s *script) Close() error { return nil }

func (s *script) Hold() error { return nil }

func (s *script) Behind() bool { return s.behind }

func (s *script) Shed() uint64 { return s.shed }

func (s *script) Credit(src netip.Addr) { s.credited = append(s.credited, src) }

func (s *script) Reply(tun.Frame) error { return errors.New("refused") }

func (s *script) Read() ([]tun.Frame, error) {
	if s.left == 0 {
		return nil, s.end
	}
	s.left--
	return s.batch, nil
}

func (s *script) Write(frames []tun.Frame) (refused int, err error) {
	for range frames {
		s.written++
		if s.refuseEach > 0 && s.written%s.refuseEach == 0 {
			refused++
			err = errors.New("refused")
		}
	}
	return refused, err
}

// scripted returns the direction that reads from a script.
func scripted(s *script) (*Bump, *direction) {
	b := New(Config{Sides: sides(s, nil), Policy: acceptAll(), Mode: packet.ModeReassemble, Fragments: limits()})
	return b, b.sides[verdict.Inside].directions[0]
}

type observerFunc func(*Decision)

func (f observerFunc) Wants(*filter.Table, filter.Verdict, *packet.Parsed) Reporter { return f }

func (f observerFunc) Decided(d *Decision) { f(d) }
