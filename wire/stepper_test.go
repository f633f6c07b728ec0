package wire

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/packettest/evasion"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// steps drives a stepper and records all that it does.
type steps struct {
	*testing.T
	*Stepper
	log    []string
	frames [verdict.Sides][][]byte // that left, by egress side
}

func newSteps(t *testing.T, c Config) *steps {
	s := &steps{T: t}
	c.Sides = sides(s.lane(verdict.Outside), s.lane(verdict.Inside))
	c.Fragments, c.Observer = limits(), s
	s.Stepper = NewStepper(c)
	t.Cleanup(s.Close)
	return s
}

// lane returns a lane that records the frames that leave for a side, and when.
func (s *steps) lane(to verdict.Side) tun.Lane {
	return tuntest.Sink(func(frames []tun.Frame) (refused int, err error) {
		for _, f := range frames {
			s.note("to %v: %d bytes", to, len(f.Data))
			s.frames[to] = append(s.frames[to], slices.Clone(f.Data))
		}
		return 0, nil
	})
}

// began is the time at which the cases begin.
var began = time.Unix(1_700_000_000, 0)

func (s *steps) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%v ", s.At().Sub(began))+fmt.Sprintf(format, args...))
}

func (s *steps) Wants(*filter.Table, filter.Verdict, *packet.Parsed) Reporter { return s }

func (s *steps) Decided(d *Decision) {
	judged, p := "", d.Parsed()
	if d.Judged {
		judged = " judged"
	}
	ports := ""
	if p.Transport == packet.Ports {
		ports = fmt.Sprintf(" %d>%d", p.SrcPort, p.DstPort)
	}
	s.note("from %v: %v%s, %d fragments, %d frames, %d bytes%s", d.From, decided(d), judged, d.Fragments, d.Frames(), d.Bytes(), ports)
}

// decided returns the action of a decision and what made it.
func decided(d *Decision) string {
	rule := d.Rule()
	switch {
	case d.Verdict.Has(filter.OfFlow) && rule != nil:
		return fmt.Sprintf("accept by a flow of rule %q", rule.Name)
	case rule != nil:
		return fmt.Sprintf("%v by rule %q", d.Verdict.Action, rule.Name)
	case d.Verdict.Action == verdict.Accept:
		return "accept by policy"
	}
	return fmt.Sprintf("%v: %v", d.Verdict.Action, d.Verdict.Reason)
}

func (s *steps) play(arrivals ...packettest.Arrival) {
	for _, a := range arrivals {
		s.Forward(a.From, tun.Frame{Data: a.Data}, began.Add(a.At))
	}
}

// expect compares the records since the last call.
func (s *steps) expect(want ...string) {
	s.Helper()
	if !slices.Equal(s.log, want) {
		s.Errorf("it was\n  %s\nwant\n  %s", strings.Join(s.log, "\n  "), strings.Join(want, "\n  "))
	}
	s.log = nil
}

func TestStepperReportsEveryDecision(t *testing.T) {
	s := newSteps(t, Config{Policy: onlyPort53(), Mode: packet.ModeReassemble})
	denied := netip.AddrPortFrom(server4.Addr(), 54)
	s.play(
		packettest.Arrival{From: verdict.Inside, Data: packettest.UDP(client4, server4, nil).Frame()},
		packettest.Arrival{From: verdict.Outside, At: time.Second, Data: packettest.UDP(server4, client4, nil).Frame()},
		packettest.Arrival{From: verdict.Inside, At: time.Second, Data: packettest.UDP(client4, denied, nil).Frame()},
		packettest.Arrival{From: verdict.Inside, At: time.Second, Data: make([]byte, 13)},
	)
	s.expect(
		`0s to outside: 42 bytes`,
		`0s from inside: accept by rule "requests" judged, 0 fragments, 1 frames, 42 bytes 40000>53`,
		`1s to inside: 42 bytes`,
		`1s from outside: accept by rule "replies" judged, 0 fragments, 1 frames, 42 bytes 53>40000`,
		`1s from inside: drop: policy_default judged, 0 fragments, 1 frames, 42 bytes 40000>54`,
		`1s from inside: drop: ethernet_truncated, 0 fragments, 1 frames, 13 bytes`,
	)

	whole := packettest.UDP(client6, server6, packettest.Body(2000)).Fragments(1000)
	s.play(packettest.Arrivals(2*time.Second, verdict.Inside, whole[2], whole[1], whole[1])...)
	s.play(packettest.Arrivals(3*time.Second, verdict.Inside, whole[0])...)
	s.expect(
		`2s from inside: drop: fragment_duplicate, 1 fragments, 1 frames, 1062 bytes`,
		`3s to outside: 1062 bytes`, `3s to outside: 1062 bytes`, `3s to outside: 70 bytes`,
		`3s from inside: accept by rule "requests" judged, 3 fragments, 3 frames, 2194 bytes 40000>53`,
	)
	for i, frame := range whole {
		if got := s.frames[verdict.Outside][1+i]; string(got) != string(frame) {
			t.Errorf("frame %d left as % x", i, got)
		}
	}

	s.Drop(verdict.Outside, tun.Frame{Data: whole[0][:60]}, began.Add(4*time.Second), verdict.SnapLength)
	s.expect(`4s from outside: drop: snap_length, 0 fragments, 1 frames, 60 bytes`)
	if n := s.Counters(verdict.Outside).Dropped[verdict.SnapLength]; n != 1 {
		t.Errorf("%d counted, want 1", n)
	}
}

// TestStepperDropsAtTheDeadline has datagrams of both families from many networks, and so in
// many shards, expire without traffic.
func TestStepperDropsAtTheDeadline(t *testing.T) {
	s := newSteps(t, Config{Policy: acceptAll(), Mode: packet.ModeReassemble})
	var want []string
	for i := range 12 {
		after := time.Duration(i) * time.Second
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i), 0, 1}), 7)
		s.play(packettest.Arrivals(after, verdict.Inside, packettest.UDP(src, server4, packettest.Body(2000)).Fragments(1448)[0])...)
		want = append(want, fmt.Sprintf("%v from inside: drop: fragment_timeout, 1 fragments, 1 frames, 1482 bytes 7>53", after+30*time.Second))
	}
	s.play(packettest.Arrivals(11*time.Second, verdict.Outside, packettest.UDP(server6, client6, packettest.Body(2000)).Fragments(1000)[1])...)
	s.expect()
	s.play(packettest.Arrivals(time.Hour, verdict.Outside, packettest.UDP(server4, client4, nil).Frame())...)
	s.expect(append(want,
		"1m11s from outside: drop: fragment_timeout, 1 fragments, 1 frames, 1062 bytes",
		"1h0m0s to inside: 42 bytes",
		"1h0m0s from outside: accept by policy judged, 0 fragments, 1 frames, 42 bytes 53>40000")...)
}

// TestStepperClockNeverRunsBackwards has a frame with an older timestamp than the one before.
// The decision shows its own timestamp, but deadlines do not move.
func TestStepperClockNeverRunsBackwards(t *testing.T) {
	s := newSteps(t, Config{Policy: acceptAll(), Mode: packet.ModeReassemble})
	frames := packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1000)
	s.play(packettest.Arrivals(10*time.Second, verdict.Inside, packettest.UDP(client4, server4, nil).Frame())...)
	s.play(packettest.Arrivals(0, verdict.Inside, frames[0])...)
	s.log = nil
	s.play(packettest.Arrivals(30*time.Second, verdict.Inside, frames[1])...)
	s.play(packettest.Arrivals(5*time.Second, verdict.Inside, frames[2])...)
	s.expect(
		"5s to outside: 1034 bytes", "5s to outside: 1034 bytes", "5s to outside: 42 bytes",
		"5s from inside: accept by policy judged, 3 fragments, 3 frames, 2110 bytes 40000>53")
}

func TestStepperClosesInOrder(t *testing.T) {
	s := newSteps(t, Config{Policy: acceptAll(), Mode: packet.ModeReassemble})
	for i := range 3 {
		d := packettest.UDP(netip.AddrPortFrom(client4.Addr(), uint16(i)), server4, packettest.Body(2000))
		d.ID = uint32(i)
		s.play(packettest.Arrivals(time.Duration(i)*time.Second, verdict.Inside, d.Fragments(1000)[0])...)
	}
	s.Close()
	s.expect(
		"2s from inside: drop: fragment_shutdown, 1 fragments, 1 frames, 1034 bytes 0>53",
		"2s from inside: drop: fragment_shutdown, 1 fragments, 1 frames, 1034 bytes 1>53",
		"2s from inside: drop: fragment_shutdown, 1 fragments, 1 frames, 1034 bytes 2>53")
}

func TestStepperWithoutTable(t *testing.T) {
	s := newSteps(t, Config{Policy: acceptAll()})
	s.play(packettest.Arrivals(0, verdict.Inside, packettest.UDP(client4, server4, packettest.Body(2000)).Fragments(1448)...)...)
	s.expect(
		"0s from inside: drop: fragment_mode, 1 fragments, 1 frames, 1482 bytes 40000>53",
		"0s from inside: drop: fragment_mode, 1 fragments, 1 frames, 594 bytes")
}

// TestStepperMatchesWire sends the catalogue through a running wire and through a stepper, in
// every mode. The same frames leave, and the same are dropped.
func TestStepperMatchesWire(t *testing.T) {
	policy := catalogue(t)
	for _, c := range evasion.Cases() {
		for family, frames := range c.Frames {
			for _, column := range columns {
				config := column.Config
				config.Policy = policy
				running := play(t, config, frames)
				s := newSteps(t, config)
				for _, f := range frames {
					s.Forward(f.From, tun.Frame{Data: f.Data}, began.Add(f.At))
				}
				s.advance(began.Add(time.Hour))
				var left [verdict.Sides][][]byte
				for _, f := range running.out {
					left[f.From.Other()] = append(left[f.From.Other()], f.Data)
				}
				dropped := map[verdict.Reason]uint64{}
				for side := range verdict.Side(verdict.Sides) {
					if !slices.EqualFunc(left[side], s.frames[side], bytes.Equal) {
						t.Errorf("%s, %v, %s: %d frames left for %v, want %d", c.Name, evasion.Family(family), column.title,
							len(s.frames[side]), side, len(left[side]))
					}
					for r, n := range s.Counters(side).Dropped {
						if n > 0 {
							dropped[verdict.Reason(r)] += n
						}
					}
				}
				if !maps.Equal(dropped, running.dropped) {
					t.Errorf("%s, %v, %s: dropped %v, want %v", c.Name, evasion.Family(family), column.title, dropped, running.dropped)
				}
			}
		}
	}
}
