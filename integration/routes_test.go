package integration_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestKernelOnSourceRoutes sends packets with random IPv4 options and IPv6 extension headers to a Linux
// host that does not accept source routes, and to one that does. Neither may accept a packet that the box
// drops as malformed. The first one may not accept a packet that the box drops because of its source
// route.
func TestKernelOnSourceRoutes(t *testing.T) {
	network, err := lab.NewDirect()
	must(t, err)
	defer network.Close()
	receiver := newReceiver(t, network)
	o := &oracle{T: t, kernel: receiver, box: receiver}
	onOneCPU(t)
	for _, accept := range []string{"0", "1"} {
		must(t, network.Hosts[verdict.Outside].Do(func() error {
			return lab.Sysctl(map[string]string{
				"net/ipv4/conf/all/accept_source_route": accept, "net/ipv4/conf/eth0/accept_source_route": accept,
				"net/ipv6/conf/all/accept_source_route": accept, "net/ipv6/conf/eth0/accept_source_route": accept,
			})
		}))
		t.Run("accept_source_route "+accept, func(t *testing.T) {
			r := rand.New(rand.NewPCG(*seed, 0))
			counts := map[string]int{}
			for range 100 {
				routedBatch(t, o, r, accept == "1", counts)
			}
			for _, what := range slices.Sorted(maps.Keys(counts)) {
				t.Logf("%6d  %s", counts[what], what)
			}
		})
	}
}

// routedBatch sends a batch of packets, each from its own source, checks which of them the host
// receives, and counts the results.
func routedBatch(t *testing.T, o *oracle, r *rand.Rand, accepts bool, counts map[string]int) {
	hosts := o.kernel.network.Hosts
	first := o.sources + 1
	var frames [][]byte
	for range batch {
		o.sources++
		ipv6 := r.IntN(2) == 0
		d := packettest.Datagram{Src: sourceOf(o.sources, ipv6), Dst: hosts[verdict.Outside].Addr(ipv6), Protocol: 253, Payload: packettest.Body(24)}
		if ipv6 {
			randomChain(r, &d)
		} else {
			d.Options = randomOptions(r)
		}
		frames = append(frames, d.Frame())
	}
	o.sources++
	must(t, o.kernel.tap.Send(lab.Between(hosts[verdict.Inside], hosts[verdict.Outside], append(frames, o.last()...)...)...))
	o.kernel.waitFor(t, o.sources)
	for i, frame := range frames {
		var p packet.Parsed
		why := p.Decode(frame)
		src := sourceOf(first+i, p.Kind == packet.IPv6)
		taken := len(o.kernel.from(src)) > 0
		o.kernel.forget(src)
		if taken && (why != verdict.Passed || p.SourceRoute && !accepts) {
			t.Errorf("the kernel accepts a packet that the box drops (%v, source route %v):\n% x", why, p.SourceRoute, frame)
		}
		counts[fmt.Sprintf("%v, source route %v, accepted %v", why, p.SourceRoute, taken)]++
	}
}
