package stack

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// flood returns the n-th fragment of an attack.
type flood func(f family, n int) []byte

// attacker returns an address outside the honest networks, either from anywhere or from one
// prefix.
func attacker(f family, r *rand.Rand, anywhere bool) netip.Addr {
	if f == familyIPv4 {
		b := [4]byte{11, 1, 1, byte(r.Uint32())}
		if anywhere {
			b = [4]byte{byte(11 + r.Uint32N(200)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}
		}
		return netip.AddrFrom4(b)
	}
	b := [16]byte{0x20, 0x01, 0x0d, 0xb9, 15: byte(r.Uint32())}
	if anywhere {
		for i := 2; i < len(b); i++ {
			b[i] = byte(r.Uint32())
		}
	}
	return netip.AddrFrom16(b)
}

// floodOf returns a flood of datagrams from src. Of each datagram it sends the fragments that
// keep returns, one or more.
func floodOf(src func(f family) netip.Addr, keep func(d packettest.Datagram) [][]byte) flood {
	var left [][]byte
	return func(f family, n int) []byte {
		if len(left) == 0 {
			d := datagram(f, uint32(n), 4000)
			d.Src = src(f)
			left = keep(d)
		}
		frame := left[0]
		left = left[1:]
		return frame
	}
}

func firstOnly(d packettest.Datagram) [][]byte {
	return [][]byte{d.Fragment(0, d.Payload[:1000], true)}
}
func lastOnly(d packettest.Datagram) [][]byte {
	return [][]byte{d.Fragment(3200, d.Payload[3200:], false)}
}
func missingMiddle(d packettest.Datagram) [][]byte {
	return [][]byte{d.Fragment(0, d.Payload[:1000], true), d.Fragment(3200, d.Payload[3200:], false)}
}
func tiny(d packettest.Datagram) (frames [][]byte) {
	for at := 0; at < 256; at += 16 {
		frames = append(frames, d.Fragment(at, d.Payload[at:at+8], true))
	}
	return frames
}
func overlapping(d packettest.Datagram) [][]byte {
	return [][]byte{d.Fragment(0, d.Payload[:1000], true), d.Fragment(800, d.Payload[800:1800], true)}
}

var keeps = map[string]func(packettest.Datagram) [][]byte{
	"first only": firstOnly, "last only": lastOnly, "missing middle": missingMiddle, "tiny": tiny, "overlapping": overlapping,
}

// TestHonestSurviveFloods adds the fragments of honest datagrams to a full table. Between them
// it adds as many fragments of a flood as a machine can send in that time. All honest datagrams
// must become complete.
func TestHonestSurviveFloods(t *testing.T) {
	const (
		rate    = 200_000 // fragments per second
		full    = 500     // datagrams
		warm    = 8_500   // fragments to fill the table with, or as few as fill it
		rounds  = 2
		nearby  = time.Millisecond      // between an honest datagram's fragments
		distant = 10 * time.Millisecond // the same over a slow path
	)
	tests := []struct {
		name     string
		anywhere bool // random sources for the flood, otherwise one prefix
		own      bool // the honest sender's prefix instead
		gap      time.Duration
	}{
		{"from anywhere", true, false, nearby},
		{"from one prefix", false, false, distant},
		{"from the honest prefix", false, true, nearby},
	}
	for _, tt := range tests {
		for kind, keep := range keeps {
			for _, engine := range engines {
				t.Run(tt.name+"/"+kind+"/"+engine.name, func(t *testing.T) {
					bothFamilies(t, func(t *testing.T, f family) {
						b := engine.new(t, func(o *Options) { o.MaxDatagrams = full }) // one shard
						r := rand.New(rand.NewPCG(1, 2))
						next := floodOf(func(f family) netip.Addr {
							if tt.own {
								return datagram(f, 0, 8).Src.Next()
							}
							return attacker(f, r, tt.anywhere)
						}, keep)
						sent := 0
						attack := func(n int) {
							for range n {
								b.put(next(f, sent))
								sent++
							}
						}
						for sent < warm && !(testing.Short() && b.table.Usage().Datagrams == full) {
							attack(full)
						}
						if u := b.table.Usage(); u.Datagrams != full {
							t.Fatalf("the table is not full: %+v", u)
						}
						for i := range rounds {
							frames := datagram(f, uint32(i), 4000).Fragments(1480)
							slices.Reverse(frames) // the first arrives last, so that all are held
							for j, frame := range frames {
								if j < len(frames)-1 {
									b.put(frame)
									attack(int(tt.gap * rate / time.Second))
									continue
								}
								if got := b.completes(frame); got != len(frames) {
									t.Fatalf("round %d: %d of %d fragments forwarded", i, got, len(frames))
								}
							}
						}
					})
				})
			}
		}
	}
}

// completes adds the last fragment to arrive of a datagram, and returns how many fragments are
// forwarded.
func (b *bench) completes(frame []byte) int {
	b.Helper()
	if b.validator.Table != nil {
		passed, _, _ := b.validate(frame, accept)
		return len(passed)
	}
	d, _ := b.add(frame, verdict.Inside)
	if d == nil {
		return 0
	}
	defer b.release(d)
	return d.Len()
}

// TestOldestIsEvictedIfNoSourceStandsOut has a source that holds two fragments, and a flood of
// sources that hold one each. If only the fragments held counted, that source would lose its
// datagram first.
func TestOldestIsEvictedIfNoSourceStandsOut(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t, func(o *Options) { o.Memory, o.MaxDatagrams = 8<<20, 100 }) // one shard
		r := rand.New(rand.NewPCG(1, 2))
		oldest := datagram(f, 1, 4000)
		oldest.Src = attacker(f, r, true)
		b.mustWait(firstOnly(oldest)[0])
		honest := datagram(f, 1, 4000).Fragments(1480)
		b.mustWait(honest[0])
		b.mustWait(honest[1])
		for i := range 99 {
			d := datagram(familyIPv4, uint32(i), 4000)
			d.Src = attacker(familyIPv4, r, true)
			b.mustWait(firstOnly(d)[0])
		}
		if n := b.dropped[verdict.FragmentEvicted]; n != 1 {
			t.Errorf("%d evicted, want the oldest", n)
		}
		b.mustComplete(honest[2], honest)
	})
}

// TestLastFragmentNeedsNoRoom fills a table completely with the datagram of one source. The
// fragment that completes it evicts nothing.
func TestLastFragmentNeedsNoRoom(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		frames := datagram(f, 1, 60000).Fragments(1480)
		memory := datagramCost
		for _, frame := range frames[1:] {
			memory += frameCost(len(frame))
		}
		b := newBench(t, func(o *Options) { o.Memory = int64(memory) })
		for _, frame := range frames[1:] {
			b.mustWait(frame)
		}
		b.mustComplete(frames[0], frames)
	})
}
