package integration_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"fragwall/integration/middle"
	"fragwall/integration/trunk"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// fourQueues is a configuration with four queues per TAP, regardless of the number of CPUs.
var fourQueues = strings.ReplaceAll(devices, "nic =", "queues = 4\nnic =") + acceptAll

// TestOrder sends whole packets and fragmented datagrams over the same flows, in both directions and
// with both address families concurrently. The datagrams of a flow must arrive in the order in which
// they were sent, and the fragments of a datagram one after the other. The test also runs with the
// kernel's bridge, to show that the hosts keep the order.
func TestOrder(t *testing.T) {
	for _, between := range []struct {
		name  string
		start func(t *testing.T, n *lab.Network)
	}{
		{"box", func(t *testing.T, n *lab.Network) {
			startWith(t, n, nil, fourQueues)
		}},
		{"box without the right to load eBPF", func(t *testing.T, n *lab.Network) {
			b := startWith(t, n, func() error { return without(unix.CAP_BPF, unix.CAP_SYS_ADMIN) }, fourQueues)
			if said := b.stderr.String(); strings.Count(said, "each tap has one queue") != 1 {
				t.Errorf("the log does not say once that each tap has one queue:\n%s", said)
			}
		}},
		{"bridge", func(t *testing.T, n *lab.Network) {
			_, err := middle.NewBridge(n, "")
			must(t, err)
		}},
	} {
		t.Run(between.name, func(t *testing.T) {
			n := newNetwork(t)
			between.start(t, n)
			for _, load := range []struct {
				name string
				gap  time.Duration // between the datagrams of a sender
				busy bool          // other threads use all available CPU time
			}{
				{"2,000 per second", 500 * time.Microsecond, false},
				{"10,000 per second", 100 * time.Microsecond, false},
				{"at once", 0, false},
				{"10,000 per second, busy", 100 * time.Microsecond, true},
			} {
				t.Run(load.name, func(t *testing.T) {
					if load.busy {
						defer spin()()
					}
					inOrder(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], fragmentMixes, load.gap)
				})
			}
		})
	}
}

// TestOrderWithOptions is [TestOrder] with packets that the fast path does not forward, because
// they have IPv4 options or an IPv6 extension header, among others of their flows.
func TestOrderWithOptions(t *testing.T) {
	n := newNetwork(t)
	startWith(t, n, nil, fourQueues)
	for _, gap := range []time.Duration{time.Millisecond, 500 * time.Microsecond, 300 * time.Microsecond, 100 * time.Microsecond} {
		t.Run(gap.String(), func(t *testing.T) {
			inOrder(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], optionMixes, gap)
		})
	}
}

// TestOrderInVLANs checks the order of frames with one tag and with two tags.
func TestOrderInVLANs(t *testing.T) {
	n := newNetwork(t)
	startWith(t, n, nil, fourQueues)
	var trunks [verdict.Sides]*trunk.Trunk
	for side, h := range n.Hosts {
		trunks[side] = openTrunk(t, h)
	}
	for name, tags := range map[string][]packet.Tag{
		"one tag":  {{TPID: unix.ETH_P_8021Q, TCI: 10}},
		"two tags": {{TPID: unix.ETH_P_8021AD, TCI: 5}, {TPID: unix.ETH_P_8021Q, TCI: 20}},
	} {
		t.Run(name, func(t *testing.T) {
			var hosts [verdict.Sides]*lab.Host
			for side, trunk := range trunks {
				h, err := trunk.VLAN(tags...)
				must(t, err)
				hosts[side] = h
			}
			inOrder(t, hosts[verdict.Inside], hosts[verdict.Outside], fragmentMixes, 500*time.Microsecond)
		})
	}
}

// TestOrderInSidecar checks the order in a pod, whose own IP layer sends through the inside's TAP.
func TestOrderInSidecar(t *testing.T) {
	p := routedPod(t)
	b := p.startSidecar(t, strings.ReplaceAll(sidecarRules, "tap =", "queues = 4\ntap ="), t.TempDir())
	p.workload.NIC, p.peer.NIC = "fw-in", "cali0"
	inOrder(t, p.workload, p.peer, fragmentMixes, 100*time.Microsecond)
	b.end(t)
}

// TestOrderOfReusedIdentification sends IPv6 datagrams of one source with the same identification, each
// after the previous one is complete. They must not be interleaved, because a receiver could mix them.
// Fragments after the first may have any Next Header (RFC 8200 §4.5), so the kernel would assign them to
// other flows.
func TestOrderOfReusedIdentification(t *testing.T) {
	n := newNetwork(t)
	mute(t, n)
	w := &wires{}
	for side, h := range n.Hosts {
		w.sockets[side] = tap(t, h)
	}
	w.box = startWith(t, n, nil, fourQueues)
	f := families[1]
	const rounds = 100
	var sent, want [][]byte
	for round := range rounds {
		echo := packettest.UDP(f.src, f.dst, packettest.Body(4000+round))
		echo.Protocol, echo.ID = packet.ProtocolICMPv6, 7
		pieces := echo.Fragments(1040)
		want = append(want, pieces...)
		slices.Reverse(pieces)
		sent = append(sent, pieces...)

		d := packettest.UDP(f.src, f.dst, packettest.Body(5000+round))
		d.ID = 7
		for at := 0; at < len(d.Payload); at += 1040 {
			end := min(at+1040, len(d.Payload))
			frame := d.Fragment(at, d.Payload[at:end], end < len(d.Payload))
			sent, want = append(sent, frame), append(want, frame)
			d.Protocol++
		}
	}
	w.send(t, verdict.Inside, sent...)
	expectFrames(t, w.sockets[verdict.Outside], want...)
}

// spin uses all available CPU time until it is stopped.
func spin() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var spinning errgroup.Group
	for range runtime.NumCPU() {
		spinning.Go(func() error {
			runtime.LockOSThread() // so that the kernel schedules one thread per goroutine
			defer runtime.UnlockOSThread()
			for ctx.Err() == nil {
				continue
			}
			return nil
		})
	}
	return func() {
		cancel()
		_ = spinning.Wait()
	}
}

// mixes lists mixes of datagram sizes in bytes. A sender uses the sizes of one mix in turn. A negative
// size means a packet with IPv4 options or an IPv6 extension header.
type mixes [][]int

var (
	fragmentMixes = mixes{{500, 3000}, {1000, 1000, 5000}}
	optionMixes   = mixes{{300, -300}, {300, 300, 300, -300}}
)

const (
	flowsPerMix = 8
	firstPort   = 20000
	perSender   = 400 // datagrams per stream; all their fragments fit into one queue of a TAP
)

// stream is the traffic from one host to another over many flows.
type stream struct {
	from, to *lab.Host
	ipv6     bool
	mixes    mixes
	senders  []*net.UDPConn // one per flow
	arrived  *net.IPConn    // receives the datagrams that the receiver's IP layer delivers
	frames   *lab.Tap       // receives the frames that arrive at the receiver's interface
}

// inOrder sends streams in both directions and with both address families, and checks the order of the
// frames and datagrams that arrive.
func inOrder(t *testing.T, a, b *lab.Host, m mixes, gap time.Duration) {
	t.Helper()
	var streams []*stream
	for _, ipv6 := range []bool{false, true} {
		exchange(t, a, b, ipv6, []int{1}) // resolves the MAC addresses
		streams = append(streams, newStream(t, a, b, m, ipv6), newStream(t, b, a, m, ipv6))
	}
	var all errgroup.Group
	for _, s := range streams {
		all.Go(func() error { return s.send(gap) })
		all.Go(s.expectDatagrams)
		all.Go(s.expectFrames)
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// newStream opens the sockets of a stream.
func newStream(t *testing.T, from, to *lab.Host, m mixes, ipv6 bool) *stream {
	t.Helper()
	s := &stream{from: from, to: to, ipv6: ipv6, mixes: m, frames: tap(t, to)}
	var err error
	s.arrived, err = to.ListenIP(ipv6, packet.ProtocolUDP)
	must(t, err)
	t.Cleanup(func() { _ = s.arrived.Close() })
	for i := range len(m) * flowsPerMix {
		listen(t, to, ipv6, firstPort+uint16(i)) // prevents ICMP errors
		s.senders = append(s.senders, listen(t, from, ipv6, 0))
	}
	return s
}

// send sends one datagram per gap, over all flows in turn. Each datagram begins with its sequence number
// within the flow.
func (s *stream) send(gap time.Duration) error {
	turns := make([]uint32, len(s.senders))
	next := time.Now()
	for i := range perSender {
		flow := i % len(turns)
		mix := s.mixes[flow%len(s.mixes)]
		size, options := mix[int(turns[flow])%len(mix)], []byte(nil)
		if size < 0 {
			size, options = -size, padding(s.ipv6)
		}
		body := make([]byte, size)
		binary.BigEndian.PutUint32(body, turns[flow])
		turns[flow]++
		to := netip.AddrPortFrom(s.to.Addr(s.ipv6), firstPort+uint16(flow))
		if _, _, err := s.senders[flow].WriteMsgUDPAddrPort(body, options, to); err != nil {
			return err
		}
		next = next.Add(gap)
		time.Sleep(time.Until(next))
	}
	return nil
}

// padding returns a control message that adds options without effect to a datagram: no operation in
// IPv4 (ip(7), IP_RETOPTS), or PadN in a destination options header (RFC 3542 §9.3, IPV6_DSTOPTS).
func padding(ipv6 bool) []byte {
	level, kind, options := unix.SOL_IP, unix.IP_RETOPTS, []byte{1, 1, 1, 1}
	if ipv6 {
		level, kind, options = unix.SOL_IPV6, unix.IPV6_DSTOPTS, []byte{0, 0, 1, 4, 0, 0, 0, 0}
	}
	message := make([]byte, unix.CmsgSpace(len(options)))
	binary.NativeEndian.PutUint64(message, uint64(unix.CmsgLen(len(options))))
	binary.NativeEndian.PutUint32(message[8:], uint32(level))
	binary.NativeEndian.PutUint32(message[12:], uint32(kind))
	copy(message[unix.CmsgLen(0):], options)
	return message
}

// order checks the sequence numbers that arrive.
type order struct {
	what string               // description for errors
	next map[[2]uint16]uint32 // lowest number expected, by the ports of the flow
	seen int                  // number of datagrams that arrived
	late int                  // number of datagrams that arrived after later ones
}

func newOrder(what string) *order { return &order{what: what, next: map[[2]uint16]uint32{}} }

// note records a datagram, given its UDP header and the beginning of its data.
func (o *order) note(udp []byte) {
	flow := [2]uint16{binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])}
	number := binary.BigEndian.Uint32(udp[8:])
	o.seen++
	if number < o.next[flow] {
		o.late++
		return
	}
	o.next[flow] = number + 1
}

// verdict returns an error if datagrams arrived out of order.
func (o *order) verdict() error {
	if o.late > 0 {
		return fmt.Errorf("%s: %d of %d arrived after later ones", o.what, o.late, o.seen)
	}
	return nil
}

func (s *stream) String() string {
	return fmt.Sprintf("%v to %v", s.from.Addr(s.ipv6), s.to.Addr(s.ipv6))
}

// ours reports whether a UDP header belongs to the stream.
func (s *stream) ours(udp []byte) bool {
	return len(udp) >= 12 && binary.BigEndian.Uint16(udp[2:])-firstPort < uint16(len(s.senders))
}

// expectDatagrams checks the order of the datagrams that the receiver's IP layer delivers.
func (s *stream) expectDatagrams() error {
	order := newOrder("datagrams " + s.String())
	b := make([]byte, 1<<16)
	for order.seen < perSender {
		if err := s.arrived.SetReadDeadline(time.Now().Add(waitTimeout)); err != nil {
			return err
		}
		n, _, err := s.arrived.ReadFromIP(b)
		if err != nil {
			return fmt.Errorf("%s: %d of %d arrived: %w", order.what, order.seen, perSender, err)
		}
		if udp := b[:n]; s.ours(udp) {
			order.note(udp)
		}
	}
	return order.verdict()
}

// expectFrames checks the order of the frames that arrive at the receiver's interface. The position of a
// fragmented datagram is that of its first fragment. The other fragments must follow it directly.
func (s *stream) expectFrames() error {
	order := newOrder("frames " + s.String())
	src, dst := s.from.Addr(s.ipv6), s.to.Addr(s.ipv6)
	torn, open := 0, packet.Fragment{}
	var p packet.Parsed
	for order.seen < perSender || open.Present {
		frame, err := s.frames.Receive(time.Now().Add(waitTimeout))
		if err != nil {
			return fmt.Errorf("%s: %d of %d arrived: %w", order.what, order.seen, perSender, err)
		}
		if p.Decode(frame) != verdict.Passed || p.Src != src || p.Dst != dst {
			continue
		}
		if first := !p.Fragment.Present || p.Fragment.Offset == 0; first && s.ours(frame[p.Upper:p.End]) {
			order.note(frame[p.Upper:p.End])
		} else if first {
			continue
		}
		if next := p.Fragment; open.Present && (next.ID != open.ID || next.Offset != open.Offset) {
			torn++
		}
		open = p.Fragment
		open.Offset += p.End - p.Fragment.Payload
		open.Present = open.Present && open.More
	}
	err := order.verdict()
	if torn > 0 {
		err = errors.Join(err, fmt.Errorf("%s: %d times another packet arrived between the fragments of a datagram", order.what, torn))
	}
	return err
}
