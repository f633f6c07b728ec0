package wire

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// transcript is an observer, and a lane that delivers one batch. It records what is written and
// what is reported.
type transcript struct {
	script
	lines []string
}

func (s *transcript) Write(frames []tun.Frame) (int, error) {
	s.lines = append(s.lines, fmt.Sprintf("%d frames written", len(frames)))
	return 0, nil
}

func (s *transcript) Wants(*filter.Table, filter.Verdict, *packet.Parsed) Reporter { return s }

func (s *transcript) Decided(d *Decision) {
	s.lines = append(s.lines, fmt.Sprintf("%v of %d frames to %d", d.Verdict.Action, d.Frames(), d.Parsed().DstPort))
}

// TestReportsFollowTheWrite has a batch with decisions of all kinds. They are reported after
// all frames of the batch are written, in the order in which they were made.
func TestReportsFollowTheWrite(t *testing.T) {
	to := func(port uint16) packettest.Datagram {
		d := packettest.UDP(client4, server4, packettest.Body(2000))
		d.ID = uint32(port)
		d.Payload[2], d.Payload[3] = byte(port>>8), byte(port)
		return d
	}
	parts := func(d packettest.Datagram) [2][]byte { return [2][]byte(d.Fragments(1448)) }
	accepted, denied, waits := parts(to(53)), parts(to(54)), parts(to(55))
	for mode, want := range map[packet.Mode][]string{
		packet.ModeReassemble: {"2 frames written", "drop of 2 frames to 54", "accept of 2 frames to 53", "drop of 1 frames to 0"},
		packet.ModeValidate: {"2 frames written", "drop of 1 frames to 54", "drop of 1 frames to 0", "accept of 1 frames to 53",
			"accept of 1 frames to 53", "drop of 1 frames to 0"},
	} {
		t.Run(mode.String(), func(t *testing.T) {
			s := &transcript{}
			for _, f := range [][]byte{denied[0], waits[1], accepted[0], denied[1], accepted[1], waits[1]} {
				s.batch = append(s.batch, tun.Frame{Data: f})
			}
			if mode == packet.ModeValidate { // one is held until the first arrives
				s.batch[2], s.batch[4] = s.batch[4], s.batch[2]
			}
			s.left, s.end = 1, tun.ErrClosed
			b := New(Config{Sides: sides(s, nil), Policy: onlyPort53(), Mode: mode, Fragments: limits(), Observer: s})
			_ = b.sides[verdict.Inside].directions[0].run()
			if !slices.Equal(s.lines, want) {
				t.Errorf("%q\nwant %q", s.lines, want)
			}
			b.closeTable()
		})
	}
}

// TestEvictionIsReportedInOrder has a fragment evict another one between two whole packets of
// its batch.
func TestEvictionIsReportedInOrder(t *testing.T) {
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		s := &transcript{script: script{left: 1, end: tun.ErrClosed}}
		denied := packettest.UDP(client4, server4, nil)
		denied.Payload[3] = 54
		evicted := packettest.UDP(client4, server4, packettest.Body(2000))
		waits := packettest.UDP(client6, server6, packettest.Body(2000))
		for _, f := range [][]byte{evicted.Fragments(1448)[1], denied.Frame(), waits.Fragments(1448)[1], packettest.UDP(client4, server4, nil).Frame()} {
			s.batch = append(s.batch, tun.Frame{Data: f})
		}
		c := Config{Sides: sides(s, nil), Policy: onlyPort53(), Mode: mode, Fragments: limits(), Observer: s}
		c.Fragments.MaxDatagrams = 1
		b := New(c)
		_ = b.sides[verdict.Inside].directions[0].run()
		b.closeTable()
		want := []string{"1 frames written", "drop of 1 frames to 54", "drop of 1 frames to 0", "accept of 1 frames to 53", "drop of 1 frames to 0"}
		if !slices.Equal(s.lines, want) {
			t.Errorf("%v: %q\nwant %q", mode, s.lines, want)
		}
		if waiting := b.Counters(verdict.Inside).Waiting; waiting != 0 {
			t.Errorf("%v: %d frames held", mode, waiting)
		}
	}
}

// TestReportedFramesAreLent compares the reported frames with those that arrived, which the
// lane overwrites at its next read.
func TestReportedFramesAreLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var came, reported [][]byte
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		b := New(Config{Sides: memorySides(ports), Policy: onlyPort53(), Mode: packet.ModeReassemble, Fragments: limits(),
			Observer: observerFunc(func(d *Decision) {
				for i := range d.Frames() {
					reported = append(reported, slices.Clone(d.Frame(i)))
				}
			})})
		for port := range uint16(100) {
			d := packettest.UDP(client4, server4, packettest.Body(int(port)))
			d.Payload[3] = byte(port)
			came = append(came, d.Frame())
		}
		came = append(came, packettest.UDP(client6, server6, packettest.Body(2000)).Fragments(1448)...)
		ports[verdict.Inside].Inject(came...)
		done := make(chan error, 1)
		go func() { done <- b.Run(t.Context()) }()
		synctest.Wait()
		for i := range came {
			if len(reported) != len(came) || string(reported[i]) != string(came[i]) {
				t.Fatalf("%d of %d frames reported; frame %d is not as it arrived", len(reported), len(came), i)
			}
		}
		b.closeLanes()
		<-done
	})
}

// logObserver observes the decisions of rules with log.
type logObserver struct{ lines []string }

func (o *logObserver) Wants(_ *filter.Table, v filter.Verdict, _ *packet.Parsed) Reporter {
	if v.Has(filter.Logged) {
		return o
	}
	return nil
}

func (o *logObserver) Decided(d *Decision) {
	o.lines = append(o.lines, d.From.String()+" "+d.Rule().Name+" "+d.Parsed().Dst.String())
}

// TestUnwantedIsNotReported has an observer that wants few decisions.
func TestUnwantedIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		var observer logObserver
		b := New(Config{
			Sides: memorySides(ports),
			Policy: &filter.Policy{Rules: []filter.Rule{
				{Name: "quiet", SrcPorts: filter.NewSet(filter.Range[uint16]{Lo: 53, Hi: 53})}, {Name: "logging", Log: true}}},
			Observer: &observer,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		ports[0].Inject(packettest.UDP(client4, server4, nil).Frame(), packettest.UDP(server4, client4, nil).Frame())
		synctest.Wait()
		cancel()
		<-done
		if len(observer.lines) != 1 || observer.lines[0] != "inside logging 192.0.2.1" {
			t.Errorf("%q", observer.lines)
		}
	})
}

// TestObserverOfARunningWire has an observer of both directions and of the timer.
func TestObserverOfARunningWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var frames atomic.Int64
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		b := New(Config{
			Sides:  memorySides(ports),
			Policy: acceptAll(), Mode: packet.ModeReassemble, Fragments: limits(), Observer: observerFunc(func(d *Decision) { frames.Add(int64(d.Frames())) }),
		})
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- b.Run(ctx) }()
		ports[0].Inject(packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)...)
		ports[1].Inject(packettest.UDP(server4, client4, nil).Frame(), packettest.UDP(server4, client4, packettest.Body(2000)).Fragments(1448)[1])
		time.Sleep(time.Minute)
		cancel()
		<-done
		if n := frames.Load(); n != 4 {
			t.Errorf("%d frames reported, want 4", n)
		}
	})
}

// TestObserve replaces the observer while frames flow and fragments are held.
func TestObserve(t *testing.T) {
	began := time.Unix(1, 0)
	s := NewStepper(Config{Sides: sides(&script{}, &script{}), Policy: acceptAll(), Mode: packet.ModeReassemble, Fragments: limits()})
	defer s.Close()
	var reported []string
	whole := tun.Frame{Data: packettest.UDP(client4, server4, nil).Frame()}
	send := func() {
		s.Forward(verdict.Inside, whole, began)
		s.Forward(verdict.Inside, tun.Frame{Data: packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)[0]}, began)
		began = began.Add(time.Minute)
		s.Forward(verdict.Outside, whole, began)
	}
	send()
	s.Observe(observerFunc(func(d *Decision) {
		reported = append(reported, fmt.Sprintf("%v %v %v", d.From, d.Verdict.Action, d.Verdict.Reason))
	}))
	send()
	s.Observe(nil)
	send()
	if want := []string{"inside accept passed", "inside drop fragment_timeout", "outside accept passed"}; !slices.Equal(reported, want) {
		t.Errorf("%q, want %q", reported, want)
	}
}

// TestObservedPacketsAllocateNothing has an observer that is asked about every packet.
func TestObservedPacketsAllocateNothing(t *testing.T) {
	b, d := scripted(&script{})
	defer b.table.Close()
	seen := 0
	d.batch.observer = observerFunc(func(decision *Decision) {
		seen += decision.Bytes() + int(decision.Parsed().DstPort)
	})
	frame := tun.Frame{Data: packettest.UDP(client4, server4, packettest.Body(64)).Frame()}
	forward := func() {
		d.take(&frame)
		d.flush()
	}
	forward() // grows the slices of the batch
	if n := testing.AllocsPerRun(100, forward); n != 0 || seen == 0 {
		t.Errorf("%v allocations per packet", n)
	}
}
