package stack

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// unfinished returns a first fragment with size bytes of payload.
func unfinished(src netip.Addr, id uint32, size int) []byte {
	d := packettest.Datagram{Src: src, Dst: packettest.OutsideIPv4, Protocol: packet.ProtocolUDP, ID: id}
	if src.Is6() {
		d.Dst = packettest.OutsideIPv6
	}
	return d.Fragment(0, packettest.Body(size), true)
}

func addr4(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }

// TestMemoryIsBounded floods a table from many sources and from one. The table must stay within
// its limits and accept each new fragment.
func TestMemoryIsBounded(t *testing.T) {
	sources := map[string]func(i int) netip.Addr{
		"many": func(i int) netip.Addr { return addr4(11, byte(i>>8), byte(i), 1) },
		"one":  func(int) netip.Addr { return addr4(11, 0, 0, 1) },
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			const memory, datagrams = 16 << 20, 4096
			b := newBench(t, func(o *Options) { o.Memory, o.MaxDatagrams = memory, datagrams })
			for i := range 20000 {
				b.mustWait(unfinished(source(i), uint32(i), 1480))
				if i%1000 == 0 {
					if u := b.table.Usage(); u.Bytes > memory || u.Datagrams > datagrams {
						t.Fatalf("after %d: %+v", i, u)
					}
				}
			}
			if b.dropped[verdict.FragmentEvicted] == 0 {
				t.Error("nothing was evicted")
			}
		})
	}
}

// TestPoisonedKeysAreBounded poisons more keys than the table may hold.
func TestPoisonedKeysAreBounded(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Memory = 1 << 20 })
	for i := range 5000 {
		d := datagram(familyIPv6, uint32(i), 4000)
		b.mustWait(d.Fragment(0, d.Payload[:80], true))
		if _, why := b.add(d.Fragment(8, d.Payload[:80], true), verdict.Inside); why != verdict.FragmentOverlap {
			t.Fatal(why)
		}
	}
	if u := b.table.Usage(); u.Bytes > 1<<20 || u.Datagrams < 500 {
		t.Errorf("%+v", u)
	}
}

// TestPoisonedDatagramsFreeMemory poisons datagrams of many fragments. The memory of their
// fragments must be freed.
func TestPoisonedDatagramsFreeMemory(t *testing.T) {
	b := newBench(t)
	before := heapInUse()
	for i := range uint32(200) {
		d := datagram(familyIPv6, i, 4000)
		for _, frame := range d.Fragments(8)[2:] {
			b.mustWait(frame)
		}
		b.put(d.Fragment(0, d.Payload[:80], true))
	}
	if grown, charged := heapInUse()-before, b.table.Usage().Bytes; grown > 2*charged {
		t.Errorf("%d bytes more on the heap for the %d charged", grown, charged)
	}
}

// TestVictimIsOldestOfHeaviest has an honest source whose one incomplete datagram is older than
// a flood from another source in the same shard.
func TestVictimIsOldestOfHeaviest(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t, func(o *Options) { o.Memory = 1 << 20 }) // one shard
		honest := datagram(f, 1, 1600).Fragments(800)
		b.mustWait(honest[0])

		flooder := addr4(11, 0, 0, 1)
		first := unfinished(flooder, 0, 1480)
		b.mustWait(first)
		for i := range 2000 {
			b.mustWait(unfinished(flooder, uint32(i+1), 1480))
		}
		b.mustComplete(honest[1], honest)

		d := packettest.Datagram{Src: flooder, Dst: packettest.OutsideIPv4, Protocol: packet.ProtocolUDP}
		if whole, _ := b.add(d.Fragment(1480, packettest.Body(8), false), verdict.Inside); whole != nil {
			b.release(whole)
			t.Error("the flood's oldest datagram was not evicted")
		}
		latest := d
		latest.ID = 2000
		whole, _ := b.add(latest.Fragment(1480, packettest.Body(8), false), verdict.Inside)
		if whole == nil {
			t.Fatal("the flood's newest datagram was evicted")
		}
		b.release(whole)
	})
}

// TestDayOfDistinctKeys adds fragments of new datagrams for 24 hours, some of them poisoned and
// some honest. Afterwards the table holds nothing, and memory use is as before.
func TestDayOfDistinctKeys(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			b := engine.new(t, func(o *Options) { o.Memory, o.MaxDatagrams = 8<<20, 2000 })
			r := rand.New(rand.NewPCG(1, 2))
			day := func(d time.Duration) {
				for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(5 * time.Second) {
					for f := range family(families) {
						d := datagram(f, r.Uint32(), 4000)
						d.Src = attacker(f, r, true)
						frames := d.Fragments(2000)
						switch r.IntN(3) {
						case 0:
							b.put(frames[0])
						case 1:
							b.put(overlapping(d)[0])
							b.put(overlapping(d)[1])
						default:
							b.put(frames[0])
							b.put(frames[1])
						}
					}
				}
				b.table.Expire(b.now.Add(time.Minute))
			}
			day(time.Hour) // lets maps and pools grow to their final size
			before := heapInUse()
			if testing.Short() {
				day(3 * time.Hour)
			} else {
				day(24 * time.Hour)
			}
			if u := b.table.Usage(); u != (Usage{}) {
				t.Errorf("the table holds %+v", u)
			}
			const noise = 256 << 10
			if grown := heapInUse() - before; grown > noise {
				t.Errorf("memory grew by %d bytes", grown)
			}
		})
	}
}

// TestMemoryCharge compares the memory that the table charges for with the growth of the heap.
// The charge is never less than that growth, and at most twice as much.
func TestMemoryCharge(t *testing.T) {
	tests := []struct {
		name      string
		datagrams int
		fragments int
		size      int
	}{
		{"full-size", 500, 20, 1448},
		{"tiny", 4, 4000, 8},
		{"only the first", 20000, 1, 64},
		{"one held", 10000, 1, 1448},
		{"hundred", 200, 100, 64},
		{"one too many for a list", 100, maxClaims + 1, 64},
	}
	bothFamilies(t, func(t *testing.T, f family) {
		for _, engine := range engines {
			for _, tt := range tests {
				t.Run(engine.name+" "+tt.name, func(t *testing.T) {
					b := engine.new(t, func(o *Options) { o.Memory = 128 << 20 })
					before := heapInUse()
					for id := range uint32(tt.datagrams) {
						d := packettest.Datagram{Src: packettest.InsideIPv6, Dst: packettest.OutsideIPv6, Protocol: packet.ProtocolGRE, ID: id}
						if f == familyIPv4 {
							d.Src, d.Dst = addr4(10, byte(id>>12), byte(id>>4), 1), packettest.OutsideIPv4
						}
						for i := range tt.fragments {
							if tt.name == "one waits" {
								i++
							}
							b.put(d.Fragment(i*tt.size, packettest.Body(tt.size), true))
						}
					}
					grown := heapInUse() - before
					charged := b.table.Usage().Bytes
					t.Logf("charged %d for %d: %.2f; %d per datagram", charged, grown, float64(charged)/float64(grown), grown/int64(tt.datagrams))
					if charged < grown || charged > 2*grown {
						t.Errorf("charged %d bytes for %d bytes of heap", charged, grown)
					}
				})
			}
		}
	})
}

// heapInUse returns the bytes of the heap that are in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // frees the objects in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
