package wire

import (
	"context"
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
	"fragwall/tun/tuntest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	client4 = netip.AddrPortFrom(packettest.InsideIPv4, 40000)
	server4 = netip.AddrPortFrom(packettest.OutsideIPv4, 53)
	client6 = netip.AddrPortFrom(packettest.InsideIPv6, 40000)
	server6 = netip.AddrPortFrom(packettest.OutsideIPv6, 53)
)

// onlyPort53 accepts what goes to port 53, or comes from there.
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

// limits are those of the configuration's defaults.
func limits() stack.Options {
	return stack.Options{TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second,
		Memory: 64 << 20, MaxFragments: 8192, MaxDatagrams: 65536}
}

// box is a wire between two devices in memory.
type box struct {
	*testing.T
	*Bump
	ports [verdict.Sides]*tuntest.Port
}

// run starts a wire that puts datagrams together.
func run(t *testing.T, policy *filter.Policy, test func(b *box)) {
	t.Helper()
	runConfig(t, Config{Policy: policy, Mode: packet.ModeReassemble}, test)
}

// runConfig starts a wire and stops it at the end of the test, inside its
// bubble. Of the configuration it sets the sides, and the limits.
func runConfig(t *testing.T, c Config, test func(b *box)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &box{T: t, ports: [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}}
		c.Sides = memorySides(b.ports)
		c.Fragments = limits()
		b.Bump = New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Bump.Run(ctx) }()
		test(b)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the wire ended with %v", err)
		}
		for side := range verdict.Side(verdict.Sides) {
			if n := b.Counters(side).Waiting; n != 0 {
				t.Errorf("stopped, %d frames from %v still wait", n, side)
			}
		}
	})
}

// memorySides are those of a wire between two devices in memory.
func memorySides(ports [verdict.Sides]*tuntest.Port) [verdict.Sides]SideConfig {
	return sides(ports[0].Lane(ports[1]), ports[1].Lane(ports[0]))
}

// send puts frames in by a side and waits until the wire has dealt with them.
func (b *box) send(from verdict.Side, frames ...[]byte) {
	b.ports[from].Inject(frames...)
	synctest.Wait()
}

// expect takes all that left for a side, and compares.
func (b *box) expect(to verdict.Side, want ...[]byte) {
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
			b.Fatalf("a frame too many left for %v: % x", to, got.Data)
		case string(got.Data) != string(want[i]):
			b.Fatalf("frame %d for %v is not what came:\n% x\n% x", i, to, got.Data, want[i])
		}
	}
}

// counted compares the counters of a side.
func (b *box) counted(from verdict.Side, received, forwarded, waiting uint64, dropped map[verdict.Reason]uint64) {
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

func TestWholePackets(t *testing.T) {
	run(t, onlyPort53(), func(b *box) {
		request := packettest.UDP(client4, server4, packettest.Body(100)).Frame()
		reply := packettest.UDP(server6, client6, packettest.Body(100)).Frame()
		padded := append(packettest.UDP(client6, server6, nil).Frame(), 1, 2, 3)
		denied := packettest.UDP(client4, netip.AddrPortFrom(server4.Addr(), 54), nil).Frame()
		arp := packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28))
		b.send(verdict.Inside, request, denied, padded, denied[:20], arp)
		b.send(verdict.Outside, reply)
		b.expect(verdict.Outside, request, padded, arp)
		b.expect(verdict.Inside, reply)
		b.counted(verdict.Inside, 5, 3, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 1, verdict.IPv4Header: 1})
		b.counted(verdict.Outside, 1, 1, 0, nil)
	})
}

func TestFragmentsAreJudgedAsOne(t *testing.T) {
	for _, family := range []struct{ client, server netip.AddrPort }{{client4, server4}, {client6, server6}} {
		run(t, onlyPort53(), func(b *box) {
			allowed := packettest.UDP(family.client, family.server, packettest.Body(4000))
			allowed.ID = 1
			frames := allowed.Fragments(1448)
			b.send(verdict.Inside, frames[2], frames[1])
			b.expect(verdict.Outside)
			b.counted(verdict.Inside, 2, 0, 2, nil)
			b.send(verdict.Inside, frames[0])
			b.expect(verdict.Outside, frames...)

			denied := packettest.UDP(family.client, netip.AddrPortFrom(family.server.Addr(), 54), packettest.Body(4000))
			denied.ID = 2
			b.send(verdict.Inside, denied.Fragments(1448)...)
			b.expect(verdict.Outside)
			b.counted(verdict.Inside, 6, 3, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 3})
			if n := b.Counters(verdict.Inside).Reassembled; n != 2 {
				b.Errorf("%d datagrams reassembled, want 2", n)
			}
		})
	}
}

// TestPortsOverFragments has the ports of an IPv4 datagram in its first
// fragment and the rest of the TCP header in others, so that only the
// reassembled header says it all.
func TestPortsOverFragments(t *testing.T) {
	run(t, onlyPort53(), func(b *box) {
		frames := packettest.TCP(client4, server4, 2).Fragments(8)
		b.send(verdict.Inside, frames...)
		b.expect(verdict.Outside, frames...)
	})
}

// TestSidesNeverMix sends the halves of a datagram by different sides.
func TestSidesNeverMix(t *testing.T) {
	run(t, acceptAll(), func(b *box) {
		frames := packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)
		b.send(verdict.Inside, frames[0])
		b.send(verdict.Outside, frames[1])
		b.expect(verdict.Outside)
		b.expect(verdict.Inside)
		b.send(verdict.Inside, frames[1])
		b.send(verdict.Outside, frames[0])
		b.expect(verdict.Outside, frames...)
		b.expect(verdict.Inside, frames...)
	})
}

// TestTimersRunWithoutTraffic lets the time of a datagram pass in silence.
func TestTimersRunWithoutTraffic(t *testing.T) {
	run(t, acceptAll(), func(b *box) {
		b.send(verdict.Inside, packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)[0])
		time.Sleep(30*time.Second - time.Millisecond)
		synctest.Wait()
		b.counted(verdict.Inside, 1, 0, 1, nil)
		time.Sleep(2 * expiryInterval)
		synctest.Wait()
		b.counted(verdict.Inside, 1, 0, 0, map[verdict.Reason]uint64{verdict.FragmentTimeout: 1})
		if u := b.Usage(); u != (stack.Usage{}) {
			b.Errorf("%+v", u)
		}
	})
}

func TestModeDrop(t *testing.T) {
	runConfig(t, Config{Policy: acceptAll()}, func(b *box) {
		d := packettest.UDP(client6, server6, packettest.Body(2000))
		atomic := packettest.UDP(client6, server6, nil)
		whole := atomic.Fragment(0, atomic.Payload, false)
		b.send(verdict.Inside, append(d.Fragments(1448), whole)...)
		b.expect(verdict.Outside, whole)
		b.counted(verdict.Inside, 3, 1, 0, map[verdict.Reason]uint64{verdict.FragmentMode: 2})
	})
}

func TestExceedsMTU(t *testing.T) {
	run(t, acceptAll(), func(b *box) {
		fits := packettest.UDP(client4, server4, packettest.Body(1472))
		fits.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 2}}
		long := packettest.UDP(client4, server4, packettest.Body(1473)).Frame()
		fragment := packettest.UDP(client4, server4, packettest.Body(4000)).Fragments(1488)[0]
		llc := packettest.UDP(client4, server4, packettest.Body(1464))
		llc.LLC = packettest.SNAP
		longer := llc
		longer.Options = []byte{1, 1, 1, 0}
		b.send(verdict.Inside, fits.Frame(), long, fragment, llc.Frame(), longer.Frame())
		b.expect(verdict.Outside, fits.Frame(), llc.Frame())
		b.counted(verdict.Inside, 5, 2, 0, map[verdict.Reason]uint64{verdict.ExceedsMTU: 3})
	})
}

// TestTrailers sends packets of exactly the MTU with bytes behind them, as a
// frame check sequence or a switch's timestamp. They stay as long as the egress
// side takes so long a frame.
func TestTrailers(t *testing.T) {
	single := []packet.Tag{{TPID: 0x8100, TCI: 10}}
	double := []packet.Tag{{TPID: 0x88a8, TCI: 10}, {TPID: 0x8100, TCI: 11}}
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		for _, tags := range [][]packet.Tag{nil, single, double} {
			runConfig(t, Config{Policy: acceptAll(), Mode: mode}, func(b *box) {
				sent := uint64(0)
				for trailer := range 40 {
					for _, hosts := range [][2]netip.AddrPort{{client4, server4}, {client6, server6}} {
						full, room := 1472, 4
						if hosts[0].Addr().Is6() {
							full -= 20
						}
						if len(tags) > 1 {
							room = 0
						}
						whole := packettest.UDP(hosts[0], hosts[1], packettest.Body(full))
						parted := packettest.UDP(hosts[0], hosts[1], packettest.Body(2000))
						whole.Tags, parted.Tags, parted.ID = tags, tags, uint32(trailer)
						frames := append([][]byte{whole.Frame()}, parted.Fragments(full&^7+8)...)
						if hosts[0].Addr().Is6() {
							frames = append(frames[:1], parted.Fragments(full&^7)...)
						}
						var came, want [][]byte
						for _, f := range frames {
							came = append(came, append(f[:len(f):len(f)], packettest.Body(trailer)...))
							if longest := 1514 + 4*len(tags) + room; len(f)+trailer <= longest {
								f = came[len(came)-1]
							}
							want = append(want, f)
						}
						b.send(verdict.Inside, came...)
						b.expect(verdict.Outside, want...)
						sent += uint64(len(came))
					}
				}
				b.counted(verdict.Inside, sent, sent, 0, nil)
			})
		}
	}
}

// TestNoLength sends frames larger than the MTU whose IP length field is 0, as a
// host leaves it that has its NIC cut packets into segments.
func TestNoLength(t *testing.T) {
	run(t, acceptAll(), func(b *box) {
		zero := func(d packettest.Datagram, at int) []byte {
			f := d.Frame()
			f[at], f[at+1] = 0, 0
			return f
		}
		long4 := zero(packettest.UDP(client4, server4, packettest.Body(1473)), 16)
		long6 := zero(packettest.UDP(client6, server6, packettest.Body(1473)), 18)
		jumbogram := packettest.UDP(client6, server6, packettest.Body(1473))
		jumbogram.FirstBefore, jumbogram.Before = 0, []byte{17, 0, 0xc2, 4, 0, 0, 5, 0xd1}
		short := zero(packettest.UDP(client4, server4, packettest.Body(1472)), 16)
		b.send(verdict.Inside, long4, long6, zero(jumbogram, 18), short)
		b.expect(verdict.Outside)
		b.counted(verdict.Inside, 4, 0, 0, map[verdict.Reason]uint64{verdict.ExceedsMTU: 3, verdict.IPv4Length: 1})
	})
}

// TestStopDropsWhatWaits stops the wire with a fragment in the table.
func TestStopDropsWhatWaits(t *testing.T) {
	var b *box
	run(t, acceptAll(), func(running *box) {
		b = running
		b.send(verdict.Inside, packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)[0])
	})
	if n := b.Counters(verdict.Inside).Dropped[verdict.FragmentShutdown]; n != 1 {
		t.Errorf("%d dropped, want 1", n)
	}
}

// tables are the policies of tests that judge by themselves.
var tables sync.Map

// judged returns the verdict on what comes from the inside.
func judged(policy *filter.Policy, p *packet.Parsed) filter.Verdict {
	table, known := tables.Load(policy)
	if !known {
		table, _ = tables.LoadOrStore(policy, filter.Compile(policy, nil))
	}
	return table.(*filter.Table).Judge(&packet.View{Parsed: p}, func() time.Duration { return 0 })
}

// TestReject has the sender told, by the side it sent from, of whole packets
// and of datagrams in fragments, and counts them as dropped.
func TestReject(t *testing.T) {
	policy := &filter.Policy{Default: verdict.Reject}
	run(t, policy, func(b *box) {
		whole := packettest.UDP(client4, server4, packettest.Body(100))
		whole.Tags = []packet.Tag{{TPID: 0x8100, TCI: 5}}
		fragments := packettest.UDP(client6, server6, packettest.Body(2000)).Fragments(1448)
		reset := packettest.TCP(client4, server4, 2).Frame()
		b.send(verdict.Inside, whole.Frame(), fragments[1], fragments[0], reset)
		b.expect(verdict.Outside)
		b.expect(verdict.Inside, replyTo(t, whole.Frame()), replyTo(t, fragments[0]), replyTo(t, reset))
		b.counted(verdict.Inside, 4, 0, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 4})
		if n := b.Counters(verdict.Inside).Answered; n != 3 {
			t.Errorf("%d answered, want 3", n)
		}
	})
}

func replyTo(t *testing.T, frame []byte) []byte {
	t.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed {
		t.Fatal(why)
	}
	return reject.Append(nil, frame, &packet.View{Parsed: &p, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}, 1500)
}

// TestRepliesAreLimited rejects more than are answered in a second.
func TestRepliesAreLimited(t *testing.T) {
	run(t, &filter.Policy{Default: verdict.Reject}, func(b *box) {
		frame := packettest.UDP(client4, server4, nil).Frame()
		for range replyRate.Count + 100 {
			b.send(verdict.Inside, frame)
		}
		if n := b.Counters(verdict.Inside).Answered; n != uint64(replyRate.Count) {
			t.Errorf("%d answered, want %d", n, replyRate.Count)
		}
		time.Sleep(10 * time.Millisecond)
		b.send(verdict.Inside, frame)
		if n := b.Counters(verdict.Inside).Answered; n <= uint64(replyRate.Count) {
			t.Errorf("%d answered a while later", n)
		}
	})
}

// TestStateful lets a reply pass, in fragments, until its time is up.
func TestStateful(t *testing.T) {
	inside := verdict.Inside
	policy := &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "out", Action: verdict.Accept, From: &inside}}}
	run(t, policy, func(b *box) {
		request := packettest.UDP(client6, server6, packettest.Body(3000)).Fragments(1448)
		reply := packettest.UDP(server6, client6, packettest.Body(3000)).Fragments(1448)
		b.send(verdict.Outside, reply...)
		b.expect(verdict.Inside)
		b.send(verdict.Inside, request...)
		b.send(verdict.Outside, reply...)
		b.expect(verdict.Outside, request...)
		b.expect(verdict.Inside, reply...)
		time.Sleep(10 * time.Minute)
		if n := b.Policy().Flows(); n != 0 {
			t.Errorf("%d flows, 10 minutes later", n)
		}
		b.send(verdict.Outside, reply...)
		b.expect(verdict.Inside)
	})
}

// picky hears of what rules with log decide on.
type picky struct{ heard []string }

func (p *picky) Wants(_ *filter.Table, v filter.Verdict, _ *packet.Parsed) Reporter {
	if v.Log {
		return p
	}
	return nil
}

func (p *picky) Decided(d *Decision) {
	p.heard = append(p.heard, d.From.String()+" "+d.Rule().Name+" "+d.Parsed().Dst.String())
}

// TestObserverHearsWhatItWants has an observer that wants few decisions.
func TestObserverHearsWhatItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		var observer picky
		b := New(Config{
			Sides: memorySides(ports),
			Policy: &filter.Policy{Rules: []filter.Rule{
				{Name: "quiet", SrcPorts: filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53})}, {Name: "loud", Log: true}}},
			Observer: &observer,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		ports[0].Inject(packettest.UDP(client4, server4, nil).Frame(), packettest.UDP(server4, client4, nil).Frame())
		synctest.Wait()
		cancel()
		<-done
		if len(observer.heard) != 1 || observer.heard[0] != "inside loud 192.0.2.1" {
			t.Errorf("%q", observer.heard)
		}
	})
}
