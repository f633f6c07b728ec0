package stack

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// unhurried does not pause.
func unhurried(int) error { return nil }

// waiting returns copies of all incomplete datagrams.
func (b *bench) waiting() (all []Waiting) {
	b.Helper()
	if err := b.table.Walk(unhurried, func(w *Waiting) error {
		own := *w
		own.Received = append([]Range(nil), w.Received...)
		all = append(all, own)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return all
}

// TestWaiting checks the description of one incomplete datagram.
func TestWaiting(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		d := datagram(f, 7, 4008)
		d.Tags = []packet.Tag{{TPID: 0x8100, TCI: 10}}
		frames := d.Fragments(1000)
		begun := epoch
		for _, e := range engines {
			t.Run(e.name, func(t *testing.T) {
				b := e.new(t)
				b.put(frames[3])
				b.now = b.now.Add(time.Second)
				b.put(frames[2])
				first := Waiting{
					From: verdict.Inside, Src: d.Src, Dst: d.Dst, VLANs: packet.VLANs{{TPID: 0x8100, TCI: 10}}, Identification: 7,
					Fragments: 2, Bytes: 2000, Received: []Range{{2000, 4000}}, Begun: begun, Deadline: begun.Add(30 * time.Second),
				}
				if f == familyIPv4 {
					first.Protocol, first.ProtocolKnown = packet.ProtocolUDP, true
				} else {
					first.Deadline = begun.Add(60 * time.Second)
				}
				b.expect(first)

				b.put(frames[0])
				second := first
				second.Fragments, second.Bytes, second.Received = 3, 3000, []Range{{0, 1000}, {2000, 4000}}
				if e.name == "validator" {
					second.Judged = true // its frame was forwarded
				} else {
					second.HasFirst, second.Protocol, second.ProtocolKnown = true, packet.ProtocolUDP, true
				}
				b.expect(second)

				overlap := d
				overlap.Payload = packettest.Body(3000)
				b.put(overlap.Fragments(1200)[1])
				poisoned := first
				poisoned.Fragments, poisoned.Bytes, poisoned.Received = 3, 3000, nil
				poisoned.Poisoned, poisoned.Judged, poisoned.Why = true, second.Judged, verdict.FragmentOverlap
				b.expect(poisoned)
			})
		}
	})
}

// expect compares the only incomplete datagram, except for its memory. Of its first fragment it
// compares the ports.
func (b *bench) expect(want Waiting) {
	b.Helper()
	all := b.waiting()
	if len(all) != 1 {
		b.Fatalf("%d incomplete datagrams", len(all))
	}
	got := all[0]
	if got.Memory <= 0 || got.HasFirst && (got.First.SrcPort != 1000 || got.First.DstPort != 53) {
		b.Errorf("%+v", got)
	}
	got.Memory, got.First = 0, packet.Parsed{}
	if !reflect.DeepEqual(got, want) {
		b.Errorf("\n%+v\nwant\n%+v", got, want)
	}
}

// TestWaitingLength sends the last fragment.
func TestWaitingLength(t *testing.T) {
	b := newBench(t)
	frames := datagram(familyIPv4, 7, 2500).Fragments(1000)
	b.mustWait(frames[2])
	if w := b.waiting()[0]; w.Length != 2500 || w.Source().Bits() != 24 || !w.Source().Contains(w.Src) {
		t.Errorf("%+v", w)
	}
}

// TestWaitingRanges sends more ranges than Walk copies.
func TestWaitingRanges(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			b := e.new(t)
			frames := datagram(familyIPv4, 7, 8*100).Fragments(8)
			for i := 1; i < 2*MaxRanges+2; i += 2 {
				b.put(frames[i])
			}
			w := b.waiting()[0]
			if len(w.Received) != MaxRanges || !w.More || w.Received[1] != (Range{24, 32}) || w.Fragments != MaxRanges+1 {
				t.Errorf("%+v", w)
			}
		})
	}
}

// TestWalk walks over incomplete datagrams while others arrive, become complete, and evict one
// another. The walk holds no lock, otherwise the test would not end.
func TestWalk(t *testing.T) {
	const datagrams = 1000
	b := newBench(t)
	frames := func(id int) [][]byte { return datagram(familyIPv4, uint32(id), 2400).Fragments(1200) }
	for id := range datagrams {
		b.mustWait(frames(id)[0])
	}
	seen := make(map[uint32]int)
	err := b.table.Walk(func(n int) error {
		if n > maxHeld {
			t.Errorf("%d datagrams visited under one lock", n)
		}
		return nil
	}, func(w *Waiting) error {
		id := int(w.Identification)
		seen[w.Identification]++
		if later := id + maxHeld; id%2 == 0 && later < datagrams { // the walk may be about to continue with it
			b.mustComplete(frames(later)[1], frames(later))
		}
		b.mustWait(frames(datagrams + id)[0])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint32(datagrams) {
		if n := seen[id]; n > 1 || n == 0 && (id < maxHeld || id%2 == 1) {
			t.Errorf("datagram %d: %d times", id, n)
		}
	}
	if len(seen) > datagrams {
		t.Errorf("%d visited, some of which arrived later", len(seen))
	}
	for _, s := range b.table.shards {
		if len(s.cursors) != 0 {
			t.Error("a cursor remains")
		}
	}
	enough := errors.New("enough")
	pauses := func(int) error { return enough }
	if err := b.table.Walk(pauses, nil); !errors.Is(err, enough) {
		t.Error(err)
	}
	if err := b.table.Walk(unhurried, func(*Waiting) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestHold has few datagrams with many fragments. The walk visits only a limited number of
// fragments while it locks a part of the table.
func TestHold(t *testing.T) {
	b := newBench(t)
	for id := range uint32(10) {
		for _, frame := range datagram(familyIPv4, id, 8*600).Fragments(8)[1:] {
			b.mustWait(frame)
		}
	}
	s := b.table.shard(func() source {
		k := keyOf(&packet.Parsed{Kind: packet.IPv4, Src: packettest.InsideIPv4, Dst: packettest.OutsideIPv4}, verdict.Inside)
		return k.source()
	}())
	c := &cursor{next: s.deadlines[familyIPv4].first}
	if n := s.copyFrom(c, s.number, make([]Waiting, maxHeld)); n != 2 {
		t.Errorf("%d datagrams of 599 fragments visited, want 2", n)
	}
}
