package stack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack/gvisor"
)

// BenchmarkReassembly decodes the fragments of a datagram and passes them through the table.
// The unit is a datagram.
func BenchmarkReassembly(b *testing.B) { benchmarkDatagrams(b, newBench) }

// BenchmarkValidation does the same with a validator. The fragments are in order, so none is
// held.
func BenchmarkValidation(b *testing.B) { benchmarkDatagrams(b, newValidatorBench) }

func benchmarkDatagrams(b *testing.B, newBench func(testing.TB, ...func(*Options)) *bench) {
	for _, size := range []int{1600, 8000, 65000} {
		for f := range family(families) {
			b.Run(fmt.Sprintf("%d bytes %s", size, name(f)), func(b *testing.B) {
				benchmarkFrames(b, newBench(b), datagram(f, 1, size).Fragments(1480-40*int(f)&^7))
			})
		}
	}
}

// benchmarkFrames sends the fragments of one datagram repeatedly.
func benchmarkFrames(b *testing.B, t *bench, frames [][]byte) {
	var p packet.Parsed
	b.ReportAllocs()
	for b.Loop() {
		for _, frame := range frames {
			p.Decode(frame)
			if t.validator.Table != nil {
				if c, _ := t.validator.Claim(frame, &p, verdict.Inside, epoch); c.First() {
					if waited := t.validator.Settle(c, verdict.Passed); waited != nil {
						t.release(waited)
					}
				}
			} else if d, _ := t.reassembler.Add(frame, &p, verdict.Inside, epoch); d != nil {
				t.release(d)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/fragment")
}

// BenchmarkShedding asks about the fragments of datagrams from a source with credit, while the
// caller is behind. The unit is a datagram.
func BenchmarkShedding(b *testing.B) {
	for f := range family(families) {
		b.Run(name(f), func(b *testing.B) {
			t := newBench(b)
			shedding := t.table.NewShedding()
			var fragments []packet.Parsed
			for _, frame := range datagram(f, 1, 8000).Fragments(1480 - 40*int(f)&^7) {
				var p packet.Parsed
				p.Decode(frame)
				fragments = append(fragments, p)
			}
			k := keyOf(&fragments[0], verdict.Inside)
			credit := t.table.credits.of(k.source())
			for b.Loop() {
				credit.earn()
				for i := range fragments {
					if shedding.Sheds(&fragments[i], verdict.Inside, true, epoch) {
						b.Fatal("shed")
					}
				}
			}
		})
	}
}

// orders are the orders in which fragments may arrive.
var orders = map[string]func(frames [][]byte){
	"in order":  func([][]byte) {},
	"backwards": slices.Reverse[[][]byte],
	"shuffled": func(frames [][]byte) {
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	},
}

// BenchmarkRebuild rebuilds a datagram as one frame, or as fragments if it exceeds the MTU of
// 1,500 bytes.
func BenchmarkRebuild(b *testing.B) {
	for _, size := range []int{1400, 8000} {
		for f := range family(families) {
			b.Run(fmt.Sprintf("%d bytes %s", size, name(f)), func(b *testing.B) {
				t := newBench(b)
				fragments := datagram(f, 1, size).Fragments(696)
				for _, frame := range fragments[:len(fragments)-1] {
					t.mustWait(frame)
				}
				d, _ := t.add(fragments[len(fragments)-1], verdict.Inside)
				defer t.release(d)
				b.ReportAllocs()
				for b.Loop() {
					if _, why := d.Rebuild(1500); why != verdict.Passed {
						b.Fatal(why)
					}
					for i, v := range d.rebuilt {
						v.Release()
						d.rebuilt[i] = gvisor.Frame{}
					}
					d.rebuilt = d.rebuilt[:0]
				}
			})
		}
	}
}

// BenchmarkSmallestFragments shows how the cost of a fragment grows with the number of
// fragments held of its datagram: 8 bytes each, up to as many as a datagram can have.
func BenchmarkSmallestFragments(b *testing.B) {
	for _, engine := range engines {
		for _, n := range []int{16, 128, 1024, 8192} {
			for order, arrange := range orders {
				b.Run(fmt.Sprintf("%s %d %s", engine.name, n, order), func(b *testing.B) {
					frames := datagram(familyIPv6, 1, 8*n-1).Fragments(8)
					arrange(frames)
					benchmarkFrames(b, engine.new(b), frames)
				})
			}
		}
	}
}

// BenchmarkFlood adds fragments of incomplete datagrams, from random sources, to a full table.
func BenchmarkFlood(b *testing.B) {
	for _, engine := range engines {
		for f := range family(families) {
			for kind, keep := range keeps {
				b.Run(engine.name+" "+name(f)+" "+kind, func(b *testing.B) {
					t := engine.new(b)
					r := rand.New(rand.NewPCG(1, 2))
					next := floodOf(func(f family) netip.Addr { return attacker(f, r, true) }, keep)
					frames := make([][]byte, 100_000)
					for i := range frames {
						frames[i] = next(f, i)
					}
					for _, frame := range frames {
						t.put(frame)
					}
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						t.put(frames[i%len(frames)])
					}
				})
			}
		}
	}
}
