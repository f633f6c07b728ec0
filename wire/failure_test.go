package wire

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// script is a lane that delivers one batch again and again, counts what it is
// given, and refuses every refuseEach-th frame.
type script struct {
	batch      []tun.Frame
	left       int // batches
	end        error
	written    int
	refuseEach int
	behind     bool
}

func (s *script) Name() string { return "script" }
func (s *script) Close() error { return nil }
func (s *script) Behind() bool { return s.behind }

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

// scripted returns the direction over a script.
func scripted(s *script) (*Bump, *direction) {
	b := New(Config{Sides: sides(s, nil), Policy: acceptAll(), Mode: packet.ModeReassemble, Fragments: limits()})
	return b, b.sides[verdict.Inside].lanes[0]
}

// sides are those of a wire with one lane from each side, which may be nil.
func sides(inside, outside tun.Lane) [verdict.Sides]SideConfig {
	e := [verdict.Sides]SideConfig{{MTU: 1500}, {MTU: 1500}}
	for side, l := range [verdict.Sides]tun.Lane{inside, outside} {
		if l != nil {
			e[side].Lanes = []tun.Lane{l}
		}
	}
	return e
}

func TestRefusedFramesAreCounted(t *testing.T) {
	whole := packettest.UDP(client4, server4, nil).Frame()
	fragments := packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)
	b, d := scripted(&script{left: 3, end: tun.ErrClosed, refuseEach: 3,
		batch: []tun.Frame{{Data: whole}, {Data: fragments[0]}, {Data: fragments[1]}}})
	defer b.table.Close()
	if err := d.run(); !errors.Is(err, tun.ErrClosed) {
		t.Fatal(err)
	}
	s := b.Counters(verdict.Inside)
	if s.Received() != 9 || s.Forwarded != 6 || s.Waiting != 0 || s.Dropped[verdict.EgressFailed] != 3 {
		t.Errorf("%+v", s)
	}
}

// TestLaneFailureEndsAll has one lane fail while another waits.
func TestLaneFailureEndsAll(t *testing.T) {
	broken := &script{end: errors.New("read tap \"x\": device removed")}
	waits := tuntest.NewPort("outside").Lane(tuntest.NewPort("inside"))
	b := New(Config{Sides: sides(broken, waits), Policy: acceptAll()})
	err := b.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "inside: read tap") {
		t.Errorf("%v", err)
	}
}

func TestWholePacketsAllocateNothing(t *testing.T) {
	frame := packettest.UDP(client6, server6, packettest.Body(64)).Frame()
	batch := make([]tun.Frame, 64)
	for i := range batch {
		batch[i] = tun.Frame{Data: frame}
	}
	b, d := scripted(&script{})
	defer b.table.Close()
	forward := func() {
		for i := range batch {
			d.take(&batch[i])
		}
		d.flush()
	}
	forward() // the batch's slices grow once
	if n := testing.AllocsPerRun(100, forward); n != 0 {
		t.Errorf("%v allocations for 64 packets", n)
	}
}

func BenchmarkWholePacket(b *testing.B) {
	frame := tun.Frame{Data: packettest.UDP(client4, server4, packettest.Body(64)).Frame()}
	bump, d := scripted(&script{})
	defer bump.table.Close()
	b.ReportAllocs()
	for b.Loop() {
		d.take(&frame)
		if len(d.batch.out) == 64 {
			d.flush()
		}
	}
}

// BenchmarkRules forwards packets of 64 flows, each by a rule of its own, from
// decoding to writing, with more and more rules.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			host := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}) }
			p := &filter.Policy{Rules: make([]filter.Rule, n)}
			for i := range p.Rules {
				p.Rules[i] = filter.Rule{Action: verdict.Accept, Protocols: filter.NewSet(filter.Range[uint8]{Lo: 17, Hi: 17}),
					Dst: filter.NewAddrSet(filter.Range[netip.Addr]{Lo: host(i), Hi: host(i)})}
			}
			var frames [64]tun.Frame
			for i := range frames {
				to := netip.AddrPortFrom(host(i*7919%n), 53)
				frames[i] = tun.Frame{Data: packettest.UDP(client4, to, packettest.Body(64)).Frame()}
			}
			bump := New(Config{Sides: sides(&script{}, nil), Policy: p})
			d := bump.sides[verdict.Inside].lanes[0]
			i := 0
			for b.Loop() {
				if d.take(&frames[i%len(frames)]); len(d.batch.out) == len(frames) {
					d.flush()
				}
				i++
			}
		})
	}
}
