package tap

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/lab"
)

// flooded is a TAP with one queue. A packet socket sends frames into it.
type flooded struct {
	*testing.T
	*TAP
	Queue
	near  *lanetest.Socket
	space *lab.Namespace
}

// Constants of bpf/shed.h.
const (
	shedMark     = int(programShedConstantsSHED_MARK)
	openMark     = int(programShedConstantsOPEN_MARK)
	newcomers    = 1 << programShedConstantsNEWCOMER_BITS
	decisionBits = int(programShedConstantsDECISION_BITS)
)

// forever is a decisionTime longer than any test, however busy the machine is.
const forever = 1 << 20

// openFlooded opens a TAP whose decisions are valid for the given time.
func openFlooded(t *testing.T, hold uint32) *flooded {
	t.Helper()
	s := &flooded{T: t}
	standard := decisionTime
	decisionTime = hold
	t.Cleanup(func() { decisionTime = standard })
	space := lanetest.Namespace(t)
	lanetest.Do(t, space, func() (err error) {
		s.TAP, err = Open(tun.Config{Name: "fw", MTU: 1500, Queues: 1})
		return err
	})
	t.Cleanup(func() { _ = s.TAP.Close() })
	for _, f := range s.fallbacks {
		lanetest.Require(t, f.Err)
	}
	s.Queue = s.queue(0)
	s.space = space
	s.near = lanetest.OpenSocket(t, space, "fw")
	return s
}

// missed returns the number of frames that the TAP reports as missed.
func (s *flooded) missed() (frames uint64) {
	s.Helper()
	lanetest.Do(s.T, s.space, func() (err error) {
		frames, err = s.Missed()
		return err
	})
	return frames
}

// send sends frames into the queue, which may refuse them.
func (s *flooded) send(frames ...[]byte) {
	s.Helper()
	for _, f := range frames {
		if err := s.near.Send(tun.Frame{Data: f}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			s.Fatal(err)
		}
	}
}

// read takes up to most frames from the queue. It returns the number of fragments of each
// datagram, by identification, and the number of whole packets.
func (s *flooded) read(most int) (fragments map[uint32]int, whole int) {
	s.Helper()
	fragments = map[uint32]int{}
	b := make([]byte, 1<<16)
	n := 0
	for ; n < most; n++ {
		size, err := unix.Read(s.queues[0], b)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			s.Fatal(err)
		}
		var p packet.Parsed
		if why := p.Decode(b[:size]); why != verdict.Passed || !p.Fragment.Present {
			whole++
			continue
		}
		fragments[p.Fragment.ID]++
	}
	s.Take(n)
	return fragments, whole
}

const all = 1 << 20

// fill sends datagrams in three fragments each until the queue holds the given number of
// frames.
func (s *flooded) fill(d packettest.Datagram, frames int) (next uint32) {
	s.Helper()
	for ; int(next)*3 < frames; next++ {
		d.ID = next
		s.send(d.Fragments(1400)...)
	}
	return next
}

// TestSheddingKeepsDatagramsWhole sends twice as many fragments as a queue holds, and does not
// read. The fragments of 20 datagrams at a time are interleaved.
func TestSheddingKeepsDatagramsWhole(t *testing.T) {
	for name, d := range map[string]packettest.Datagram{
		"IPv4":       packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000)),
		"IPv6":       packettest.UDP(lanetest.Client6, lanetest.Server6, packettest.Body(4000)),
		"IPv4, tags": tagged(packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))),
		"IPv6, tags": tagged(packettest.UDP(lanetest.Client6, lanetest.Server6, packettest.Body(4000))),
	} {
		t.Run(name, func(t *testing.T) {
			s := openFlooded(t, forever)
			const together = 20
			sent := 0
			for id := uint32(0); sent < 2*queueLength; id += together {
				for fragment := range 3 {
					for i := range uint32(together) {
						d.ID = id + i
						s.send(d.Fragments(1400)[fragment])
						sent++
					}
				}
			}
			fragments, _ := s.read(all)
			for id, n := range fragments {
				if n != 3 {
					t.Errorf("%d of 3 fragments of datagram %d are in the queue", n, id)
				}
			}
			// One in 16 of the datagrams above the mark is a newcomer, on average.
			if n, most := 3*len(fragments), shedMark+3*together+2*(2*queueLength-shedMark)/newcomers; n < shedMark || n > most {
				t.Errorf("%d fragments are in the queue; the mark is %d", n, shedMark)
			}
			if got := s.Shed(); got != uint64(sent-3*len(fragments)) {
				t.Errorf("%d shed, want %d", got, sent-3*len(fragments))
			}
			if missed := s.missed(); missed != 0 {
				t.Errorf("%d missed", missed)
			}
		})
	}
}

func tagged(d packettest.Datagram) packettest.Datagram {
	d.Tags = []packet.Tag{{TPID: unix.ETH_P_8021AD, TCI: 7}, {TPID: unix.ETH_P_8021Q, TCI: 8}}
	return d
}

// TestSheddingEnds empties a queue. A datagram that was refused stays refused for a while, and new
// ones pass.
func TestSheddingEnds(t *testing.T) {
	s := openFlooded(t, decisionTime)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	next := s.fill(d, shedMark+1)
	var refused [][]byte
	for before := s.Shed(); s.Shed() == before; { // a newcomer may be admitted
		next++
		d.ID = next
		refused = d.Fragments(1400)
		s.send(refused[0])
	}
	d.ID++
	other := d.Fragments(1400)
	if fragments, _ := s.read(all); fragments[next] != 0 {
		t.Fatal("no datagram was refused")
	}
	s.send(refused[1], other[0], other[1], refused[2], other[2])
	if fragments, _ := s.read(all); fragments[next] != 0 || fragments[next+1] != 3 {
		t.Errorf("%d fragments of the refused datagram, %d of the next", fragments[next], fragments[next+1])
	}
	// After a while the identification may belong to another datagram.
	for deadline, before := time.Now().Add(lanetest.Timeout), s.In(); s.In() == before; s.send(refused[0]) {
		if time.Now().After(deadline) {
			t.Fatal("the datagram is refused permanently")
		}
	}
}

// TestWholePacketsAreNotShed fills a queue with fragments up to their mark, and then with more
// whole packets than fit below the mark of whole packets. The queue must hold whole packets up to
// that mark, and the rest must count as missed.
func TestWholePacketsAreNotShed(t *testing.T) {
	s := openFlooded(t, forever)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	s.fill(d, shedMark)
	waiting := int(s.In())
	whole := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(64)).Frame()
	const beyond = 100
	for range openMark - waiting + beyond {
		s.send(whole)
	}
	if _, n := s.read(all); n != openMark-waiting {
		t.Errorf("%d packets are in the queue, want %d", n, openMark-waiting)
	}
	if missed := s.missed(); missed != beyond {
		t.Errorf("%d missed, want %d", missed, beyond)
	}
	// Missed frames do not count as backlog.
	if int(s.In()) != openMark {
		t.Errorf("%d frames entered the queue, want %d", s.In(), openMark)
	}
}

// TestOddFramesPassTheFilter checks that frames that the filter cannot parse reach the reader,
// also above the mark.
func TestOddFramesPassTheFilter(t *testing.T) {
	s := openFlooded(t, forever)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	s.fill(d, shedMark+1)
	s.read(100) // makes room in the kernel's queue; the next line keeps the count above the mark
	s.own.Taken -= 100
	whole := d.Frame()
	v6 := packettest.UDP(lanetest.Client6, lanetest.Server6, packettest.Body(4000)).Fragments(1400)[1]
	odd := [][]byte{lanetest.Number(1, 60), whole[:14+19], v6[:14+47], d.Ethernet(100, make([]byte, 100)), whole[:14]}
	before := s.In()
	s.send(odd...)
	if n := s.In() - before; n != uint32(len(odd)) {
		t.Errorf("%d of %d frames passed", n, len(odd))
	}
}

// TestEmptyQueueHasNoBacklog makes the count of a queue include frames that are not in it. When a
// lane finds the queue empty, Empty must correct the count.
func TestEmptyQueueHasNoBacklog(t *testing.T) {
	s := openFlooded(t, forever)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	s.fill(d, shedMark+1)
	b := make([]byte, 1<<16)
	for { // without Take
		if _, err := unix.Read(s.queues[0], b); err != nil {
			break
		}
	}
	const datagrams = 20 // a few may be newcomers
	send := func(first uint32) int {
		for d.ID = first; d.ID < first+datagrams; d.ID++ {
			s.send(d.Fragments(1400)...)
		}
		fragments, _ := s.read(all)
		return len(fragments)
	}
	if send(1<<15) == datagrams {
		t.Fatal("the filter knows that the queue is empty")
	}
	s.Empty(s.In())
	if n := send(1<<15 + datagrams); n != datagrams {
		t.Errorf("%d of %d datagrams were admitted", n, datagrams)
	}
}

// TestCreditedSourcesComeIn fills the queue to the mark. Datagrams of a source with credit are
// admitted until the credit is used up. Those of other sources are refused.
func TestCreditedSourcesComeIn(t *testing.T) {
	const server4, server6 = "198.51.100.1:1", "[2001:db8::1]:1"
	for name, c := range map[string]struct{ honest, neighbour, other, server string }{
		"IPv4": {"192.0.2.1:1", "192.0.2.254:1", "192.0.3.1:1", server4},
		"IPv6": {"[2001:db8:0:100::1]:1", "[2001:db8:0:1ff::1]:1", "[2001:db8:0:200::1]:1", server6},
	} {
		t.Run(name, func(t *testing.T) {
			s := openFlooded(t, forever)
			s.fill(packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000)), shedMark)
			id := uint32(1 << 15)
			passes := func(src string) bool {
				id++
				d := packettest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(c.server), packettest.Body(4000))
				d.ID = id
				before := s.In()
				s.send(d.Fragments(1400)...)
				return s.In()-before == 3
			}
			// mostRefused expects that only newcomers are admitted, one in 16 on average.
			mostRefused := func(src string) {
				t.Helper()
				const tries = 64
				n := 0
				for range tries {
					if passes(src) {
						n++
					}
				}
				if n > tries/3 {
					t.Errorf("%d of %d datagrams from %s were admitted without credit", n, tries, src)
				}
			}
			mostRefused(c.honest)
			s.Credit(netip.MustParseAddrPort(c.honest).Addr())
			mostRefused(c.other)
			for i := range creditEarned {
				if src := []string{c.honest, c.neighbour}[i%2]; !passes(src) {
					t.Errorf("datagram %d, from %s, was refused", i, src)
				}
			}
			mostRefused(c.honest)
			for range 2 * creditMost / creditEarned {
				s.Credit(netip.MustParseAddrPort(c.honest).Addr())
			}
			n := 0
			for passes(c.honest) {
				n++
			}
			if n < creditMost-creditEarned || n > creditMost+10 { // the last may be newcomers
				t.Errorf("credit for %d datagrams, want %d", n, creditMost)
			}
		})
	}
}

// TestCreditHasAMark overloads the queue from a source with credit. Its datagrams are refused from
// the higher mark on.
func TestCreditHasAMark(t *testing.T) {
	s := openFlooded(t, forever)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	for d.ID = 0; int(d.ID)*3 < 2*queueLength; d.ID++ {
		s.Credit(lanetest.Client4.Addr())
		s.send(d.Fragments(1400)...)
	}
	if n := int(s.In()); n < openMark || n >= openMark+3 {
		t.Errorf("%d fragments are in the queue; the mark is %d", n, openMark)
	}
}

// TestWholePacketsLeaveRoomForDatagrams sends more whole packets than the reader takes. The share
// of datagrams that are admitted must be at least half the share of whole packets for a source
// with credit, and 1/64 of it for a source without.
func TestWholePacketsLeaveRoomForDatagrams(t *testing.T) {
	const rounds, packets, read = 1500, 20, 16 // in each round
	whole := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(64)).Frame()
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	for name, credit := range map[string]bool{"with credit": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			s := openFlooded(t, forever)
			passes := func(frames ...[]byte) int {
				before := s.In()
				s.send(frames...)
				return int(s.In() - before)
			}
			for range queueLength {
				s.send(whole)
			}
			datagrams, through := 0, 0
			for range rounds {
				if credit {
					s.Credit(lanetest.Client4.Addr())
				}
				d.ID++
				switch n := passes(d.Fragments(1400)...); {
				case n == 3:
					datagrams++
				case n != 0:
					t.Fatalf("%d of 3 fragments were admitted", n)
				}
				for range packets {
					through += passes(whole)
				}
				s.read(read)
			}
			share := float64(through) / (rounds * packets)
			least := share / 2
			if !credit {
				least /= 2 * newcomers
			}
			if got := float64(datagrams) / rounds; got < least {
				t.Errorf("admitted: %.3f of the datagrams, %.3f of the whole packets", got, share)
			}
		})
	}
}

// TestRefusalsKeepAdmissions admits the first fragments of some datagrams, then refuses many other
// datagrams. The other fragments of the admitted datagrams must still pass.
func TestRefusalsKeepAdmissions(t *testing.T) {
	s := openFlooded(t, forever)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	d.ID = s.fill(d, shedMark)
	const datagrams, others = 32, 1 << (decisionBits - 3)
	var rest [][]byte
	for range datagrams {
		s.Credit(lanetest.Client4.Addr())
		f := d.Fragments(1400)
		s.send(f[0])
		rest = append(rest, f[1:]...)
		d.ID++
	}
	whole := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(64)).Frame()
	for range queueLength {
		s.send(whole)
	}
	first := packettest.UDP(lanetest.Server4, lanetest.Client4, packettest.Body(4000)).Fragments(1400)[0]
	before := s.Shed()
	for id := range uint16(others) {
		binary.BigEndian.PutUint16(first[14+4:], id)
		s.send(first)
	}
	if n := s.Shed() - before; n != others {
		t.Fatalf("%d of %d datagrams were refused", n, others)
	}
	in := s.In()
	s.send(rest...)
	if n := s.In() - in; n != uint32(len(rest)) {
		t.Errorf("%d of %d fragments of admitted datagrams passed", n, len(rest))
	}
}

// TestDecisionsShareAPlace sends pairs of datagrams whose hashes share a place for decisions. If
// both were admitted, both stay whole. If both were refused, both stay refused.
func TestDecisionsShareAPlace(t *testing.T) {
	s := openFlooded(t, forever)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
	pairs := pairsAtAPlace(s.fill(d, shedMark))
	both := func(pair [2]uint32) (first, rest [][]byte) {
		for _, d.ID = range pair {
			f := d.Fragments(1400)
			first, rest = append(first, f[0]), append(rest, f[1:]...)
		}
		return first, rest
	}
	s.Credit(lanetest.Client4.Addr())
	first, rest := both(pairs[0])
	s.send(first...)
	whole := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(64)).Frame()
	for range queueLength {
		s.send(whole)
	}
	in := s.In()
	s.send(rest...)
	if n := s.In() - in; n != uint32(len(rest)) {
		t.Errorf("%d of %d fragments of admitted datagrams passed", n, len(rest))
	}

	first, rest = both(pairs[1])
	s.send(first...)
	s.read(all)
	in = s.In()
	s.send(rest...)
	if n := s.In() - in; n != 0 {
		t.Errorf("%d of %d fragments of refused datagrams passed", n, len(rest))
	}
}

// pairsAtAPlace returns two pairs of identifications, starting at from. The hashes of the IPv4
// datagrams of a pair, between the test's addresses, share a place.
func pairsAtAPlace(from uint32) (pairs [2][2]uint32) {
	src, dst := lanetest.Client4.Addr().As4(), lanetest.Server4.Addr().As4()
	seen, n := map[uint64]uint32{}, 0
	for id := from; n < len(pairs); id++ {
		var b [2]byte
		binary.BigEndian.PutUint16(b[:], uint16(id))
		hash := mixed(hashKey + uint64(binary.NativeEndian.Uint16(b[:])) + unix.IPPROTO_UDP<<16)
		hash = mixed(hash + uint64(binary.NativeEndian.Uint32(src[:])))
		hash = mixed(hash + uint64(binary.NativeEndian.Uint32(dst[:])))
		place := hash & (1<<decisionBits - 1)
		other, found := seen[place]
		if !found {
			seen[place] = id
			continue
		}
		pairs[n] = [2]uint32{other, id}
		delete(seen, place)
		n++
	}
	return pairs
}
