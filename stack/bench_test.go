package stack

import (
	"fmt"
	"testing"

	"fragwall/packet"
)

// BenchmarkReassembly is the whole way of a datagram's fragments through the
// table, decoding included. Its unit is a datagram.
func BenchmarkReassembly(b *testing.B) {
	for _, size := range []int{1600, 8000, 65000} {
		for f := range family(families) {
			b.Run(fmt.Sprintf("%d bytes %s", size, name(f)), func(b *testing.B) {
				t := newBench(b)
				frames := datagram(f, 1, size).Fragments(1480 - 40*int(f)&^7)
				var p packet.Parsed
				b.ReportAllocs()
				for b.Loop() {
					for _, frame := range frames {
						p.Decode(frame)
						if d, _ := t.table.Add(frame, &p, packet.Inside, epoch); d != nil {
							t.release(d)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/fragment")
			})
		}
	}
}

// BenchmarkSmallestFragments shows how the cost of a fragment grows with how
// many of its datagram wait: 8 bytes each, sent backwards.
func BenchmarkSmallestFragments(b *testing.B) {
	for _, n := range []int{16, 128, 1024, 8128} {
		b.Run(fmt.Sprintf("%d fragments", n), func(b *testing.B) {
			t := newBench(b)
			frames := datagram(familyIPv4, 1, 8*n).Fragments(8)
			var p packet.Parsed
			for b.Loop() {
				for i := len(frames) - 1; i >= 0; i-- {
					p.Decode(frames[i])
					if d, _ := t.table.Add(frames[i], &p, packet.Inside, epoch); d != nil {
						t.release(d)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/fragment")
		})
	}
}
