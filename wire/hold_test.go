package wire

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// TestHold holds a wire. Frames that arrive meanwhile are forwarded after the release.
func TestHold(t *testing.T) {
	run(t, acceptAll(), func(b *testWire) {
		frame := packettest.UDP(client4, server4, packettest.Body(20)).Frame()
		b.send(verdict.Inside, frame)
		b.expect(verdict.Outside, frame)
		for range 2 {
			if err := b.Hold(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.send(verdict.Inside, frame)
			b.expect(verdict.Outside)
			b.Release()
			synctest.Wait()
			b.expect(verdict.Outside, frame)
		}
		b.Release() // changes nothing
	})
}

// TestHeldWireEnds ends a wire that is held. It ends, and drops no incomplete datagram.
func TestHeldWireEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		b := New(Config{Policy: acceptAll(), Mode: packet.ModeReassemble, Sides: memorySides(ports), Fragments: limits()})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		ports[verdict.Inside].Inject(fragmentsOf(1)[0])
		synctest.Wait()
		if err := b.Hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s := b.Counters(verdict.Inside); s.Waiting != 1 || s.Received() != 1 {
			t.Errorf("%d of %d frames held", s.Waiting, s.Received())
		}
	})
}

// TestHoldFails asks to hold a wire when one of its lanes is not being read. The wire
// continues.
func TestHoldFails(t *testing.T) {
	b := New(Config{Policy: acceptAll(), Sides: sides(&script{}, nil), Fragments: limits()})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Hold(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("held: %v", err)
	}
	b.Reload(acceptAll()) // does not wait
}

func fragmentsOf(id uint32) [][]byte {
	d := packettest.UDP(client4, server4, packettest.Body(4000))
	d.ID = id
	return d.Fragments(1448)
}

// TestHandOver has a second wire take over the ports of a first one that is held, in the middle
// of a datagram and of a flow.
func TestHandOver(t *testing.T) {
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { handOver(t, mode) })
		})
	}
}

func handOver(t *testing.T, mode packet.Mode) {
	policy := onlyPort53()
	policy.Stateful = true
	policy.Rules = policy.Rules[:1]
	ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
	start := func(saved *bytes.Buffer) (w *testWire, stop func()) {
		b := New(Config{Policy: policy, Mode: mode, Sides: memorySides(ports), Fragments: limits()})
		if saved != nil {
			if err := b.Restore(saved); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		return &testWire{t, b, ports}, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	first, stop := start(nil)
	query, fragments := packettest.UDP(client4, server4, packettest.Body(20)).Frame(), fragmentsOf(1)
	first.send(verdict.Inside, query, fragments[2], fragments[1])
	first.expect(verdict.Outside, query)
	if err := first.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	reply := packettest.UDP(server4, client4, packettest.Body(20)).Frame()
	first.send(verdict.Outside, reply)
	var saved bytes.Buffer
	if err := first.Save(&saved, AllFlows|Rest); err != nil {
		t.Fatal(err)
	}
	stop()

	time.Sleep(20 * time.Second)
	second, stop := start(&saved)
	defer stop()
	synctest.Wait()
	second.expect(verdict.Inside, reply)
	second.counted(verdict.Inside, 3, 1, 2, nil)
	second.send(verdict.Inside, fragments[0])
	if mode == packet.ModeValidate {
		second.expect(verdict.Outside, fragments[0], fragments[1], fragments[2])
	} else {
		second.expect(verdict.Outside, fragments...)
	}
	second.counted(verdict.Inside, 4, 4, 0, nil)
	second.counted(verdict.Outside, 1, 1, 0, nil)
	if n := second.Policy().Count(0); n.Datagrams != 3 {
		t.Errorf("the rule counted %d datagrams, want 3", n.Datagrams)
	}
}

// TestRestoreInTime restores flows and fragments after a pause in which some expire. They
// expire as if the wire had not been replaced.
func TestRestoreInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := acceptAll()
		policy.Stateful = true
		config := Config{Policy: policy, Mode: packet.ModeReassemble, Sides: sides(&script{}, &script{}), Fragments: limits(), Now: time.Now}
		b := New(config)
		d := b.sides[verdict.Inside].directions[0]
		take := func(frame []byte) {
			d.take(&tun.Frame{Data: bytes.Clone(frame)})
			d.flush()
		}
		take(packettest.UDP(client4, server4, packettest.Body(20)).Frame())
		take(fragmentsOf(1)[0])
		time.Sleep(20 * time.Second)
		take(packettest.UDP(netip.AddrPortFrom(client4.Addr(), 1), server4, packettest.Body(20)).Frame())
		take(fragmentsOf(2)[0])
		var saved bytes.Buffer
		if err := b.Save(&saved, AllFlows|Rest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		after := New(config)
		if err := after.Restore(&saved); err != nil {
			t.Fatal(err)
		}
		if n := after.Policy().Flows(); n != 1 {
			t.Errorf("%d flows, want only the later one", n)
		}
		after.expire(time.Now())
		s := after.Counters(verdict.Inside)
		if s.Waiting != 1 || s.Dropped[verdict.FragmentTimeout] != 1 || s.Received() != 4 {
			t.Errorf("%d fragments held, %d expired, of %d frames", s.Waiting, s.Dropped[verdict.FragmentTimeout], s.Received())
		}
	})
}

// TestRestoreInAnotherMode counts the restored fragments as dropped, as at the end of a wire.
func TestRestoreInAnotherMode(t *testing.T) {
	b, d := scripted(&script{})
	d.take(&tun.Frame{Data: fragmentsOf(1)[0]})
	d.flush()
	var saved bytes.Buffer
	if err := b.Save(&saved, Rest); err != nil {
		t.Fatal(err)
	}
	after := New(Config{Policy: acceptAll(), Mode: packet.ModeValidate, Fragments: limits()})
	if err := after.Restore(&saved); err != nil {
		t.Fatal(err)
	}
	s := after.Counters(verdict.Inside)
	if s.Waiting != 0 || s.Dropped[verdict.FragmentShutdown] != 1 || s.Received() != 1 {
		t.Errorf("%+v", s)
	}
}
