package stack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// shedder is a Shedding that tests ask about frames.
type shedder struct {
	*testing.T
	*bench
	shedding *Shedding
}

func newShedder(t *testing.T) *shedder {
	b := newBench(t)
	return &shedder{t, b, b.table.NewShedding()}
}

func (s *shedder) sheds(frame []byte, behind bool) bool {
	s.T.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed {
		s.T.Fatal(why)
	}
	return s.shedding.Sheds(&p, verdict.Inside, behind, s.now)
}

// unknown returns the fragments of a datagram from an unknown source. Each number has a source
// of its own.
func unknown(f family, number, fragments int) [][]byte {
	d := datagram(f, 7, 800*fragments)
	src := d.Src.AsSlice()
	binary.BigEndian.PutUint16(src[1:], uint16(number))
	d.Src, _ = netip.AddrFromSlice(src)
	return d.Fragments(800)
}

// TestShedsWholeDatagrams offers datagrams of sources without credit, in batches that end in
// the middle of one.
func TestShedsWholeDatagrams(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		s := newShedder(t)
		const fragments = 5
		shed := map[int]int{} // fragments by datagram
		inTurn, taken := 0, 0
		for number := range 100 {
			for _, frame := range unknown(f, number, fragments) {
				if inTurn++; inTurn%123 == 0 {
					s.shedding.Turn()
				}
				if s.sheds(frame, true) {
					shed[number]++
				} else {
					taken++
				}
			}
		}
		for number, n := range shed {
			if n != fragments {
				t.Errorf("%d of %d fragments of datagram %d are shed", n, fragments, number)
			}
		}
		turns := 100 * fragments / 123 // and an incomplete one
		if taken < turns*maxUncredited || taken > (turns+1)*(maxUncredited+fragments) {
			t.Errorf("%d fragments accepted in %d turns", taken, turns)
		}
	})
}

// TestSheddingHasAnEnd catches up after a datagram was shed. The rest of that datagram is shed
// for a while, all else is accepted.
func TestSheddingHasAnEnd(t *testing.T) {
	s := newShedder(t)
	for number := range maxUncredited {
		s.sheds(unknown(familyIPv4, number, 1)[0], true)
	}
	frames := unknown(familyIPv4, 1000, 3)
	if !s.sheds(frames[0], true) {
		t.Fatal("a datagram of an unknown source is not shed")
	}
	s.shedding.Turn()
	s.now = s.now.Add(decisionTime*time.Millisecond - 1)
	if !s.sheds(frames[1], false) {
		t.Error("the rest of the datagram is accepted")
	}
	if s.sheds(unknown(familyIPv4, 1001, 3)[0], false) {
		t.Error("another datagram is shed while the caller is not behind")
	}
	s.now = s.now.Add(time.Millisecond)
	if s.sheds(frames[2], false) {
		t.Error("the decision never ends")
	}
}

// TestCreditLastsForTheDatagram has a source's credit end in the middle of a datagram.
func TestCreditLastsForTheDatagram(t *testing.T) {
	s := newShedder(t)
	d := datagram(familyIPv4, 1, 1600)
	s.mustWait(d.Fragments(800)[0])
	whole, _ := s.add(d.Fragments(800)[1], verdict.Inside)
	s.reassembler.Credit(whole)
	s.release(whole)
	for number := range maxUncredited {
		s.sheds(unknown(familyIPv4, number, 1)[0], true)
	}
	long := datagram(familyIPv4, 2, 8*(creditEarned+maxUncredited)).Fragments(8)
	for i, frame := range long {
		if s.sheds(frame, true) {
			t.Fatalf("fragment %d of %d is shed", i, len(long))
		}
	}
	if d.ID++; !s.sheds(d.Fragments(800)[0], true) {
		t.Error("a datagram without credit is accepted")
	}
}

// TestSheddingBoundsOneDatagram has a datagram that never ends.
func TestSheddingBoundsOneDatagram(t *testing.T) {
	s := newShedder(t)
	d := packettest.UDP(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("198.51.100.1:1"), packettest.Body(4000))
	taken := 0
	for _, frame := range d.Fragments(8) {
		if !s.sheds(frame, true) {
			taken++
		}
	}
	if taken != 2*maxUncredited {
		t.Errorf("%d fragments accepted, want %d", taken, 2*maxUncredited)
	}
}
