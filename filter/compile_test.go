package filter_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"strconv"
	"syscall"
	"testing"
	"time"

	"fragwall/filter"
)

// hostile are artificial kinds of policies whose rules overlap as much as possible.
var hostile = []shape{
	// Random ranges in every field that has ranges.
	{"ranges", func(g *rand.Rand, _, _ int) filter.Rule {
		return filter.Rule{Src: span4(g), Dst: span4(g), DstPorts: spanPorts(g)}
	}},
	{"ranges6", func(g *rand.Rand, _, _ int) filter.Rule {
		return filter.Rule{Src: span6(g), Dst: span6(g), SrcPorts: spanPorts(g)}
	}},
	// Half of the rules are narrow in the fields in which the others are wide.
	{"crossing", func(g *rand.Rand, i, _ int) filter.Rule {
		if i%2 == 0 {
			return filter.Rule{Src: host(g), Dst: span4(g)}
		}
		return filter.Rule{Src: span4(g), Dst: host(g)}
	}},
	// The networks and ports of each rule contain those of all earlier rules.
	{"onion", func(g *rand.Rand, i, n int) filter.Rule {
		at := uint32(n-i) << 12
		around := filter.NewAddrSet(filter.Range[netip.Addr]{Lo: address4(at), Hi: address4(^at)})
		lo := uint16((n - i) * 32000 / n)
		return filter.Rule{Src: around, Dst: around, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: lo, Hi: ^lo})}
	}},
	// Scattered hosts and ports, as source and as destination.
	{"lists", func(g *rand.Rand, _, _ int) filter.Rule {
		var src, dst filter.AddrSet
		var ports filter.Set[uint16]
		for range 4 {
			src, dst, ports = append(src, host(g)...), append(dst, host(g)...), append(ports, one(uint16(g.Uint32()))...)
		}
		return filter.Rule{Src: filter.NewAddrSet(src...), Dst: filter.NewAddrSet(dst...), DstPorts: filter.NewSet(ports...)}
	}},
	// All addresses except one, and a random port.
	{"holes", func(g *rand.Rand, _, _ int) filter.Rule {
		return filter.Rule{Src: host(g).Complement(), Dst: host(g).Complement(), DstPorts: one(uint16(g.Uint32()))}
	}},
}

func address4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func span4(g *rand.Rand) filter.AddrSet {
	a, b := g.Uint32(), g.Uint32()
	return filter.NewAddrSet(filter.Range[netip.Addr]{Lo: address4(min(a, b)), Hi: address4(max(a, b))})
}

func span6(g *rand.Rand) filter.AddrSet {
	a, b := network6(g, 128)[0].Lo, network6(g, 128)[0].Lo
	if b.Less(a) {
		a, b = b, a
	}
	return filter.NewAddrSet(filter.Range[netip.Addr]{Lo: a, Hi: b})
}

func spanPorts(g *rand.Rand) filter.Set[uint16] {
	a, b := uint16(g.Uint32()), uint16(g.Uint32())
	return filter.NewSet(filter.Range[uint16]{Lo: min(a, b), Hi: max(a, b)})
}

// compiled is a table with the cost of compiling it.
type compiled struct {
	table      *filter.Table
	took       time.Duration // of all CPUs
	kept, peak uint64        // bytes of heap in addition to those before
}

func measureCompile(t testing.TB, p *filter.Policy) compiled {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	now := func() uint64 { metrics.Read(heap); return heap[0].Value.Uint64() }
	runtime.GC()
	before := now()
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		highest := before
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
				highest = max(highest, now())
			case <-done:
				peak <- highest
				return
			}
		}
	}()
	start := cpuTime(t)
	c := compiled{table: compile(t, p)}
	c.took = cpuTime(t) - start
	close(done)
	c.peak = <-peak - before
	runtime.GC()
	c.kept = now() - before
	runtime.KeepAlive(p)
	return c
}

// cpuTime returns the CPU time of the process, including the garbage collector. Wall-clock time
// would depend on the load of the system.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range append(shapes, hostile...) {
		b.Run(s.name+"/100000", func(b *testing.B) {
			p, _ := s.policy(100_000)
			var c compiled
			for b.Loop() {
				c = measureCompile(b, p)
			}
			b.ReportMetric(float64(c.took.Milliseconds()), "cpu-ms")
			b.ReportMetric(float64(c.kept)/(1<<20), "MiB-kept")
			b.ReportMetric(float64(c.peak)/(1<<20), "MiB-peak")
			runtime.KeepAlive(c.table)
		})
	}
}

// BenchmarkHostileLookup measures lookups in policies for which the tree stops dividing.
func BenchmarkHostileLookup(b *testing.B) {
	for _, s := range hostile {
		for _, n := range []int{1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) { benchmarkLookup(b, s, n) })
		}
	}
}

// TestSharedSet checks that many rules with one long set cost about as much to compile as
// one rule.
func TestSharedSet(t *testing.T) {
	ranges := make([]filter.Range[netip.Addr], 10_000)
	for i := range ranges {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
		ranges[i] = filter.Range[netip.Addr]{Lo: a, Hi: a}
	}
	set := filter.NewAddrSet(ranges...)
	compile := func(rules int) uint64 {
		p := &filter.Policy{Rules: make([]filter.Rule, rules)}
		for i := range p.Rules {
			p.Rules[i] = filter.Rule{Name: strconv.Itoa(i), Src: set, DstPorts: filter.NewSet(filter.Range[uint16]{Lo: uint16(i), Hi: uint16(i)})}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		filter.Compile(p, nil)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if one, many := compile(1), compile(200); many > 2*one {
		t.Errorf("200 rules take %d bytes, and one %d", many, one)
	}
}
