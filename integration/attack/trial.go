package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"fragwall/integration/middle"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// trial is one measurement.
type trial struct {
	middle   column
	flood    Flood // nothing is sent if Kind is empty
	families []bool
	defaults bool // keep the hosts' default kernel limits for fragments
	tcp      bool // also send a TCP stream
	idle     bool // use idle connections and new exchanges instead of the other honest traffic
	duration time.Duration
}

// result is the result of a trial.
type result struct {
	rate     float64 // of the flood, frames per second
	sent     int     // honest datagrams
	came     int     // honest datagrams that arrived
	p50, p99 time.Duration
	tcp      float64 // bits per second
	idle     int     // idle connections
	alive    int     // those that survived the flood
	memory   int64   // maximum in bytes
	cpu      float64 // of the middle's process, in cores
	hasCPU   bool    // cpu is known
	lost     uint64  // frames dropped before they reached the middle's process
	says     string  // output of the middle
	foreign  float64 // cores used by other processes
}

// share returns the share of honest datagrams that were delivered, 0 to 1.
func (r *result) share() float64 { return float64(r.came) / float64(max(r.sent, 1)) }

// survival returns the share of idle connections that survived, 0 to 1.
func (r *result) survival() float64 { return float64(r.alive) / float64(max(r.idle, 1)) }

// quietTimeout is the maximum time that a trial waits until other processes use little CPU time.
const quietTimeout = 10 * time.Second

// warmUp is the time that a flood runs before the measurement, so that tables fill.
const warmUp = time.Second

// best runs the trial until other processes do not disturb it, but at most attempts times. It
// returns the least disturbed result.
func (t *trial) best(ctx context.Context, attempts int) (best result, err error) {
	for i := range attempts {
		if attempts > 1 {
			middle.AwaitQuiet(ctx, quietTimeout)
		}
		others := middle.WatchForeign()
		r, err := t.run(ctx)
		if err != nil {
			return r, err
		}
		if r.foreign = others.Cores(); i == 0 || r.foreign < best.foreign {
			best = r
		}
		if best.foreign < middle.QuietEnough {
			break
		}
	}
	return best, nil
}

// run sets up the network, measures, and removes the network.
func (t *trial) run(ctx context.Context) (r result, err error) {
	n, running, err := t.setUp()
	if err != nil {
		return r, err
	}
	defer n.Close()
	if running != nil {
		defer func() {
			var failure error
			r.says, failure = running.Down()
			err = errors.Join(err, failure)
		}()
	}
	sockets, err := t.occupy(n)
	if err != nil {
		return r, err
	}
	defer sockets()

	var connections []*idle
	if t.idle {
		for _, ipv6 := range t.families {
			i, err := openIdle(n.Hosts, ipv6)
			if err != nil {
				return r, fmt.Errorf("open idle connections: %w", err)
			}
			defer i.close()
			connections = append(connections, i)
		}
	}

	ended := make(chan error, 1)
	var generator *exec.Cmd
	if t.flood.Kind != "" {
		if generator, err = t.generate(n, ended); err != nil {
			return r, err
		}
		select {
		case <-time.After(warmUp):
		case err := <-ended:
			return r, fmt.Errorf("generator: %w: %s", err, generator.Stderr)
		}
	}
	if t.idle {
		err = t.begin(ctx, connections, running, &r)
	} else {
		err = t.measure(ctx, n, running, &r)
	}
	if generator != nil {
		if failure := <-ended; failure != nil {
			return r, errors.Join(err, fmt.Errorf("generator: %w: %s", failure, generator.Stderr))
		}
		var g generated
		err = errors.Join(err, json.Unmarshal(generator.Stdout.(*bytes.Buffer).Bytes(), &g))
		r.rate = float64(g.Frames) / g.Seconds
	}
	for _, c := range connections {
		alive, failure := c.survivors()
		r.idle, r.alive, err = r.idle+len(c.clients), r.alive+alive, errors.Join(err, failure)
	}
	return r, err
}

// begin starts new exchanges for the duration of the trial, and records the middle's costs.
func (t *trial) begin(ctx context.Context, connections []*idle, m running, r *result) error {
	ctx, cancel := context.WithTimeout(ctx, t.duration)
	defer cancel()
	var done sync.WaitGroup
	sent, came, failures := make([]int, len(connections)), make([]int, len(connections)), make([]error, len(connections))
	for i, c := range connections {
		done.Go(func() { sent[i], came[i], failures[i] = c.newcomers(ctx) })
	}
	watch(ctx, m, r)
	done.Wait()
	for i := range connections {
		r.sent, r.came = r.sent+sent[i], r.came+came[i]
	}
	return errors.Join(failures...)
}

// setUp makes the hosts and the middle. r is nil if a cable connects the hosts.
func (t *trial) setUp() (n *lab.Network, r running, err error) {
	if t.middle.up == nil {
		n, err = lab.NewDirect()
	} else {
		n, err = lab.New()
	}
	if err != nil {
		return nil, nil, err
	}
	for _, h := range n.Hosts {
		if err = h.Do(t.configure); err != nil {
			n.Close()
			return nil, nil, err
		}
	}
	if t.middle.up != nil {
		if r, err = t.middle.up(n); err != nil {
			n.Close()
			return nil, nil, err
		}
	}
	return n, r, nil
}

// configure raises a host's kernel limits for fragments so far that no flood reaches them. Then
// only the middle is tested.
func (t *trial) configure() error {
	if t.defaults {
		return nil
	}
	return lab.Sysctl(map[string]string{
		"net/ipv4/ipfrag_high_thresh":  "536870912",
		"net/ipv4/ipfrag_time":         "2",
		"net/ipv6/ip6frag_high_thresh": "536870912",
		"net/ipv6/ip6frag_time":        "2",
	})
}

// occupy opens harmlessPort on the outside host, so that the host does not send ICMP errors about
// packets to it. No one reads from the sockets.
func (t *trial) occupy(n *lab.Network) (release func(), err error) {
	var open []interface{ Close() error }
	release = func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	for _, ipv6 := range t.families {
		c, err := n.Hosts[verdict.Outside].ListenUDP(ipv6, harmlessPort)
		if err != nil {
			release()
			return nil, err
		}
		open = append(open, c)
	}
	return release, nil
}

// generate starts the generator on the inside host.
func (t *trial) generate(n *lab.Network, ended chan<- error) (*exec.Cmd, error) {
	in, out := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	f := t.flood
	f.Seconds = (warmUp + t.duration).Seconds()
	f.NIC = in.NIC
	f.From, f.To = in.MAC, out.MAC
	if t.middle.up == nil {
		f.To = []byte{2, 0, 0, 0, 0, 99} // an unused MAC address, so that the host's IP layer does not process the flood
	}
	f.Dst4, f.Dst6, f.Own4, f.Own6 = out.IPv4, out.IPv6, in.IPv4, in.IPv6
	self, arguments, err := middle.Generator(f)
	if err != nil {
		return nil, err
	}
	c := exec.Command(self, arguments...)
	c.Stdout, c.Stderr = &bytes.Buffer{}, &strings.Builder{}
	return c, middle.Start(in.Namespace, 0, c, ended)
}

// measure runs the honest traffic for the duration of the trial, and records the middle's costs.
func (t *trial) measure(ctx context.Context, n *lab.Network, m running, r *result) error {
	ctx, cancel := context.WithTimeout(ctx, t.duration)
	defer cancel()
	var done sync.WaitGroup
	traffic := make([]honest, len(t.families))
	failures := make([]error, len(t.families)+1)
	for i, ipv6 := range t.families {
		traffic[i] = honest{hosts: n.Hosts, ipv6: ipv6}
		done.Go(func() { failures[i] = traffic[i].run(ctx) })
	}
	if t.tcp {
		done.Go(func() { r.tcp, failures[len(t.families)] = stream(ctx, n.Hosts, t.families[0]) })
	}
	if m != nil {
		watch(ctx, m, r)
	}
	done.Wait()
	var trips []time.Duration
	probes := 0
	for _, h := range traffic {
		r.sent += h.sent
		r.came += h.came
		probes += h.probes
		trips = append(trips, h.trips...)
	}
	r.p50, r.p99 = percentile(trips, probes, 50), percentile(trips, probes, 99)
	return errors.Join(failures...)
}

// watch records the memory, the CPU time and the lost frames of a middle until ctx is done.
func watch(ctx context.Context, m running, r *result) {
	start := time.Now()
	before, _ := m.CPU()
	lost := m.Lost()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for ctx.Err() == nil {
		r.memory = max(r.memory, m.Memory())
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	after, ok := m.CPU()
	r.cpu, r.hasCPU = (after-before)/time.Since(start).Seconds(), ok
	r.lost = m.Lost() - lost
}
