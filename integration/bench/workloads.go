package main

import (
	"fmt"
	"net/netip"
	"slices"

	"fragwall/packet/verdict"
)

// figure is the result of a trial.
type figure struct {
	value   float64 // in the workload's unit
	p99     float64 // of round-trip times, in microseconds
	loss    float64 // share of the sent datagrams that did not arrive
	cpu     float64 // CPU seconds per gigabyte of sender, middle and receiver together
	boxCPU  float64 // CPU seconds per gigabyte of fragwall's process
	foreign float64 // cores used by other processes
}

// workload is a kind of traffic between the hosts.
type workload struct {
	name string
	unit string
	run  func(p *spot, seconds float64, o *observer) (figure, error)
	// pairs lists the comparisons; the workload runs over each middle in them.
	pairs []pair
}

// pair is a comparison of a middle with a baseline.
type pair struct{ base, other spec }

var (
	withKernel = []pair{{kernel10, box10}, {kernel10, stateful10}, {kernel10, slow10}}
	withModes  = []pair{{kernel10, box10}, {kernel10, validate10}, {kernel10, statefulVa10}, {kernel10, slowValid10}}
	withPod    = []pair{{pod, podSidecar}, {pod, podSlow}}
)

// middlesOf returns the middles of the pairs, each once.
func middlesOf(pairs []pair) (all []spec) {
	for _, p := range pairs {
		for _, s := range []spec{p.base, p.other} {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// workloads returns the workloads of `make bench-wire`.
func workloads() []workload {
	list := []workload{{
		name: "UDP, 64 bytes", unit: "kpps",
		run:   datagrams(false, 64, 1e-3),
		pairs: append(slices.Clone(withKernel), pair{kernel1000, box1000}, pair{box10, box100000}),
	}}
	for _, l := range []struct {
		name string
		ipv6 bool
		size int
	}{
		{"UDP, 8,000 bytes in 6 fragments, IPv4", false, 8000},
		{"UDP, 8,000 bytes in 6 fragments, IPv6", true, 8000},
		{"UDP, 1,600 bytes in 2 fragments, IPv4", false, 1600},
		{"UDP, 1,600 bytes in 2 fragments, IPv6", true, 1600},
	} {
		list = append(list, workload{
			name: l.name, unit: "Gbit/s",
			run:   datagrams(l.ipv6, l.size, float64(l.size)*8e-9),
			pairs: withModes,
		})
	}
	for _, times := range []float64{1.5, 2} {
		list = append(list, workload{
			name: fmt.Sprintf("UDP, 8,000 bytes in 6 fragments, IPv4, at %v times the best rate", times), unit: "of the best",
			run:   overload(8000, times),
			pairs: []pair{{kernel10, box10}},
		})
	}
	return append(list,
		workload{name: "TCP, offloads on", unit: "Gbit/s", run: connection, pairs: withKernel},
		workload{name: "TCP, offloads off", unit: "Gbit/s", run: segmentByHost, pairs: withKernel},
		workload{name: "Round trip, 64 bytes", unit: "µs", run: roundTrip, pairs: withKernel},
		workload{name: "One denied flow, 64 bytes", unit: "µs of the process per frame", run: denied, pairs: []pair{{slow10, box10}}},
		workload{name: "Sidecar: TCP out of the pod", unit: "Gbit/s", run: connection, pairs: withPod},
		workload{name: "Sidecar: TCP into the pod", unit: "Gbit/s", run: connectionIn, pairs: withPod},
		workload{name: "Sidecar: flood ping", unit: "µs", run: floodPing, pairs: withPod},
	)
}

// datagrams returns a workload that sends datagrams as fast as possible. The value is the number of
// datagrams received per second, times scale. The time is the sender's or the receiver's, whichever
// is longer.
func datagrams(ipv6 bool, size int, scale float64) func(*spot, float64, *observer) (figure, error) {
	return func(p *spot, seconds float64, o *observer) (f figure, err error) {
		sent, came, err := p.exchange("send", "receive", ipv6, load{Size: size, Seconds: seconds}, o)
		if err != nil || came.Datagrams == 0 {
			return f, err
		}
		f.value = float64(came.Datagrams) / max(sent.Seconds, came.Seconds) * scale
		f.loss = 1 - float64(came.Datagrams)/float64(sent.Datagrams)
		o.costs(&f, float64(came.Datagrams)*float64(size))
		return f, nil
	}
}

// overload returns a workload that first finds the highest rate that the middle forwards, and then
// offers a multiple of it. The value is the rate forwarded then, divided by the highest rate. If the
// middle blocks the sender, as the kernel's bridge does, the sender offers less.
func overload(size int, times float64) func(*spot, float64, *observer) (figure, error) {
	return func(p *spot, seconds float64, o *observer) (f figure, err error) {
		offer := func(rate float64) (passed float64) {
			sent, came, e := p.exchange("send", "receive", false, load{Size: size, Seconds: seconds, Rate: rate}, o)
			if err == nil {
				err = e
			}
			f.loss = 1 - float64(came.Datagrams)/float64(sent.Datagrams)
			return float64(came.Datagrams) / max(sent.Seconds, came.Seconds)
		}
		best := offer(0)
		for rate, better := best, true; better && err == nil; rate *= 1.1 {
			passed := offer(rate)
			better = passed > 0.97*rate
			best = max(best, passed)
		}
		f.value = offer(times*best) / best
		return f, err
	}
}

// connection measures a TCP connection that sends from the inside.
func connection(p *spot, seconds float64, o *observer) (figure, error) {
	return connectionWith(p, seconds, o)
}

// connectionIn measures a TCP connection that sends from the outside.
func connectionIn(p *spot, seconds float64, o *observer) (figure, error) {
	return connectionWith(p, seconds, o, "--reverse")
}

func connectionWith(p *spot, seconds float64, o *observer, flags ...string) (f figure, err error) {
	bytes, took, err := p.stream(seconds, o, flags...)
	if err != nil {
		return f, err
	}
	f.value = bytes * 8e-9 / took
	// The CPU time includes the first half second, in which bytes are not counted.
	o.costs(&f, bytes*o.seconds/took)
	return f, nil
}

// segmentByHost measures connection with the hosts' offloads off, so that their TCP sends segments
// of the MTU.
func segmentByHost(p *spot, seconds float64, o *observer) (f figure, err error) {
	if err := p.switchOffloads(false); err != nil {
		return f, err
	}
	if f, err = connection(p, seconds, o); err != nil {
		return f, err
	}
	return f, p.switchOffloads(true)
}

// roundTrip measures round-trip times of datagrams: the median and the 99th percentile.
func roundTrip(p *spot, seconds float64, o *observer) (f figure, err error) {
	sent, _, err := p.exchange("ping", "echo", false, load{Size: 64, Seconds: seconds}, o)
	f.value, f.p99 = sent.P50, sent.P99
	return f, err
}

// denied sends datagrams that no rule accepts. The value is the CPU time of fragwall's process per
// datagram in microseconds.
func denied(p *spot, seconds float64, o *observer) (f figure, err error) {
	to := netip.AddrPortFrom(p.network.Hosts[verdict.Outside].IPv4, deniedPort)
	sent, err := p.send(load{Role: "send", Addr: to, Size: 64, Seconds: seconds}, o)
	if err != nil || sent.Datagrams == 0 {
		return f, err
	}
	f.value = o.boxCPU / float64(sent.Datagrams) * 1e6
	return f, nil
}

// costs sets the CPU seconds per gigabyte of a figure, given the number of bytes.
func (o *observer) costs(f *figure, bytes float64) {
	f.cpu, f.boxCPU = o.machineCPU/bytes*1e9, o.boxCPU/bytes*1e9
}
