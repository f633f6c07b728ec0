package wire

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// fromInside returns a policy that lets only the inside begin flows.
func fromInside() *filter.Policy {
	inside := verdict.Inside
	return &filter.Policy{Stateful: true, Rules: []filter.Rule{{Name: "out", Action: verdict.Accept, From: &inside}}}
}

// tcp sends the next segment of a connection, and checks whether the fast path handles it.
func (w *twin) tcp(c *connection, from verdict.Side, flags byte, body int, fast bool) {
	w.Helper()
	before := w.fast
	w.send(from, c.next(from, flags, body, 40000, nil))
	if (w.fast > before) != fast {
		w.Fatalf("from %v, flags %#x: by the fast path: %v", from, flags, !fast)
	}
}

// udp sends a datagram between two hosts, and checks whether the fast path handles it.
func (w *twin) udp(from verdict.Side, fast bool) {
	w.Helper()
	src, dst := client4, server4
	if from == verdict.Outside {
		src, dst = dst, src
	}
	before := w.fast
	w.send(from, packettest.UDP(src, dst, nil).Frame())
	if (w.fast > before) != fast {
		w.Fatalf("from %v: by the fast path: %v", from, !fast)
	}
}

// expectStates compares the flows of both wires, and their states.
func (w *twin) expectStates(want ...string) {
	w.Helper()
	w.compare()
	flows := flowsOf(w.Fatalf, w.behind)
	if len(flows) != len(want) {
		w.Fatalf("%v, want %v", flows, want)
	}
	for i := range flows {
		if !strings.Contains(flows[i], " "+want[i]+" ") {
			w.Errorf("%v, want %v", flows, want)
		}
	}
}

// after lets time pass, and expires flows in both tables.
func (w *twin) after(d time.Duration) {
	w.at = w.at.Add(d)
	w.path.now = w.at
	for _, s := range []*Stepper{w.behind, w.alone} {
		s.advance(w.at)
		s.policy.Load().Expire(func() time.Duration { return s.now.Sub(s.started) }, 1)
	}
}

// opened opens a connection, and sends thousands of its segments through the fast path.
func opened(t *testing.T) (*twin, *connection) {
	w := newTwin(t, fromInside(), packet.ModeReassemble)
	c := &connection{origin: verdict.Inside, port: 1}
	w.tcp(c, verdict.Inside, syn, 0, false)
	w.tcp(c, verdict.Outside, syn|ack, 0, false)
	w.tcp(c, verdict.Inside, ack, 0, false)
	w.tcp(c, verdict.Outside, ack, 100, false)
	for range 20_000 {
		w.at = w.at.Add(time.Millisecond)
		w.tcp(c, verdict.Inside, ack, 1400, true)
		w.tcp(c, verdict.Outside, ack, 0, true)
	}
	w.expectStates("ESTABLISHED")
	return w, c
}

// TestFastConnectionEndsByFIN has hosts close a connection that the fast path has forwarded.
// The table accepts the segments, and the flow expires as usual.
func TestFastConnectionEndsByFIN(t *testing.T) {
	w, c := opened(t)
	w.tcp(c, verdict.Inside, fin|ack, 0, false)
	w.expectStates("FIN_WAIT")
	w.tcp(c, verdict.Outside, ack, 100, false)
	w.tcp(c, verdict.Outside, fin|ack, 0, false)
	w.tcp(c, verdict.Inside, ack, 0, false)
	w.expectStates("TIME_WAIT")
	w.after(121 * time.Second)
	w.expectStates()
}

// TestFastConnectionEndsByRST has a host reset such a connection.
func TestFastConnectionEndsByRST(t *testing.T) {
	w, c := opened(t)
	w.tcp(c, verdict.Outside, rst, 0, false)
	w.expectStates("CLOSE")
	w.tcp(c, verdict.Inside, ack, 100, false)
	w.after(11 * time.Second)
	w.expectStates()
}

// TestFastFlowsStayAlive lets time pass while all datagrams of flows, one of them a connection,
// take the fast path.
func TestFastFlowsStayAlive(t *testing.T) {
	w, c := opened(t)
	w.udp(verdict.Inside, false)
	w.udp(verdict.Outside, false)
	w.udp(verdict.Inside, false)
	for range 100 {
		w.after(29 * time.Second)
		w.udp(verdict.Inside, true)
		w.udp(verdict.Outside, true)
	}
	w.expectStates("ESTABLISHED", "REPLIED")
	w.after(119 * time.Second) // it is a stream now
	w.udp(verdict.Outside, false)
	w.tcp(c, verdict.Inside, ack, 100, false) // idle for long, but not expired
	w.after(121 * time.Second)
	w.udp(verdict.Outside, false) // expired: denied
	w.expectStates("ESTABLISHED")
}

// TestReloadReachesFastFlows denies a flow that the fast path forwards. Once the policy is in
// force, no datagram of it passes. Accepted again, the flow continues.
func TestReloadReachesFastFlows(t *testing.T) {
	w, c := opened(t)
	w.udp(verdict.Inside, false)
	w.udp(verdict.Inside, false)
	w.udp(verdict.Inside, true)
	w.reload(&filter.Policy{Stateful: true})
	hosts := *c // the hosts do not learn of the drops
	w.tcp(c, verdict.Inside, ack, 100, false)
	w.tcp(c, verdict.Outside, ack, 100, false)
	w.udp(verdict.Inside, false)
	w.expectStates("ESTABLISHED", "UNREPLIED")
	if n := w.behind.Counters(verdict.Outside).Dropped[verdict.FlowDenied]; n != 1 {
		t.Errorf("%d dropped of a denied flow", n)
	}
	w.reload(fromInside())
	*c = hosts
	w.tcp(c, verdict.Inside, ack, 100, false)
	w.tcp(c, verdict.Outside, ack, 100, false)
	w.tcp(c, verdict.Inside, ack, 100, true)
	w.compare()
}

// TestFastDropsEnd has the fast path drop datagrams from outside until the inside begins the
// flow.
func TestFastDropsEnd(t *testing.T) {
	w := newTwin(t, fromInside(), packet.ModeReassemble)
	w.udp(verdict.Outside, false)
	w.udp(verdict.Outside, true)
	w.udp(verdict.Inside, false)
	w.udp(verdict.Outside, false)
	w.udp(verdict.Outside, true)
	w.compare()
	if s := w.behind.Counters(verdict.Outside); s.Dropped[verdict.PolicyDefault] != 2 || s.Forwarded != 2 {
		t.Errorf("%+v", s)
	}
}

// front is a lane behind a fast path.
type front struct {
	tun.Lane
	path *memoryPath
	from verdict.Side
	fast *atomic.Int64
}

func (f *front) Read() ([]tun.Frame, error) {
	for {
		frames, err := f.Lane.Read()
		var up, on []tun.Frame
		for _, frame := range frames {
			switch forwarded, done := f.path.pass(f.from, frame.Data, 1500); {
			case forwarded:
				on = append(on, frame)
				fallthrough
			case done:
				f.fast.Add(1)
			default:
				up = append(up, frame)
			}
		}
		if len(on) > 0 {
			_, _ = f.Lane.Write(on)
		}
		if len(up) > 0 || err != nil {
			return up, err
		}
	}
}

// TestReloadUnderFastLoad reloads repeatedly while datagrams of some flows pass in both
// directions, most of them through the fast path. All arrive, and one rule counts each of them
// once.
func TestReloadUnderFastLoad(t *testing.T) {
	ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
	path := newMemoryPath(packet.ModeReassemble)
	path.now = began
	var fast atomic.Int64
	lanes := [verdict.Sides]tun.Lane{}
	for from := range verdict.Side(verdict.Sides) {
		lanes[from] = &front{ports[from].Lane(ports[from.Other()]), path, from, &fast}
	}
	b := New(Config{Sides: sides(lanes[0], lanes[1]), Policy: halves(1), Mode: packet.ModeReassemble, Fragments: limits(), FastPath: path,
		Now: func() time.Time { return began }})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- b.Run(ctx) }()

	const size, enough = 100, 20
	var sent, reloads atomic.Int64
	load, _ := errgroup.WithContext(ctx)
	for from := range verdict.Side(verdict.Sides) {
		load.Go(func() error {
			src, dst := client4, server4
			if from == verdict.Outside {
				src, dst = dst, src
			}
			for n := 0; n < enough || reloads.Load() < enough || fast.Load() < 1000; n++ {
				var frames [][]byte
				for i := range size {
					body := binary.BigEndian.AppendUint32(nil, uint32(i))
					frames = append(frames, packettest.UDP(netip.AddrPortFrom(src.Addr(), uint16(i%5)), netip.AddrPortFrom(dst.Addr(), uint16(i%5)), body).Frame())
				}
				ports[from].Inject(frames...)
				for range frames {
					sent.Add(1)
					if _, err := ports[from.Other()].Next(ctx); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	reloadDuring(t, b, load, &reloads, time.Millisecond)
	cancel()
	<-running
	counted, forwarded := ruleCount(b), uint64(0)
	for side := range verdict.Side(verdict.Sides) {
		c := b.Counters(side)
		forwarded += c.Forwarded
	}
	if counted != uint64(sent.Load()) || forwarded != counted {
		t.Errorf("the rules counted %d of %d datagrams, %d were forwarded", counted, sent.Load(), forwarded)
	}
	t.Logf("%d of %d by the fast path, %d reloads", fast.Load(), sent.Load(), reloads.Load())
}
