package fastpath

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// unported is a frame of a flow whose ports the programs do not read, or that stands for
// several datagrams.
type unported struct {
	frame   []byte
	segment uint16 // size of the segments in bytes; 0 for one datagram
}

// unportedFrames returns such frames of a flow.
func unportedFrames(src, dst netip.AddrPort) map[string]unported {
	d := packettest.UDP(src, dst, packettest.Body(64))
	segments := packettest.UDP(src, dst, packettest.Body(1000)).Frame()
	if src.Addr().Is4() {
		options, fragment := d, d
		options.Options = []byte{1, 1, 1, 0}
		fragment.Options = options.Options
		return map[string]unported{"options": {options.Frame(), 0}, "segments": {segments, 300}, "fragment with options": {fragment.Fragments(32)[1], 0}}
	}
	extension, behind := d, d
	extension.FirstBefore, extension.Before = 60, []byte{packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0}
	behind.FirstAfter, behind.After = 60, extension.Before
	return map[string]unported{
		"extension": {extension.Frame(), 0}, "segments": {segments, 300},
		"atomic fragment":            {d.Fragment(0, d.Payload, false), 0},
		"extension behind fragments": {behind.Fragments(32)[0], 0},
	}
}

// TestOrderWithoutPorts passes up such a frame of a flow whose other packets are forwarded.
// While it is in user space, the others are passed up too. The frame may leave the process as
// it arrived, or in the segments that it stands for.
func TestOrderWithoutPorts(t *testing.T) {
	for _, family := range families {
		plain := packettest.UDP(family.client, family.server, packettest.Body(64)).Frame()
		for name, odd := range unportedFrames(family.client, family.server) {
			t.Run(name, func(t *testing.T) {
				q := newQueue(t, plain, 0)
				q.settle()
				pair := &q.memory.orders[q.memory.slots[1].Pair[verdict.Inside]]
				expect := func(want outcome, when string) {
					t.Helper()
					if way := q.come(plain); way != want {
						t.Errorf("%v %s, want %v: %+v, %+v", way, when, want, *q.order(), *pair)
					}
				}
				leave := func(frame []byte, segment uint16) {
					t.Helper()
					run(q, q.out(verdict.Outside), frame, segment)
					atomic.StoreUint64(&pair.LastDone, monotonic()-2*sent)
				}
				expect(forwarded, "at first")
				for range 2 {
					if way := run(q, q.in(verdict.Inside), odd.frame, odd.segment); way != passedUp {
						t.Fatal(way)
					}
				}
				atomic.StoreUint64(&pair.LastUp, monotonic()+uint64(time.Hour))
				expect(passedUp, "with two on their way")
				leave(odd.frame, odd.segment)
				expect(passedUp, "with one on its way")
				if odd.segment == 0 {
					leave(odd.frame, 0)
				} else { // 1000 bytes in segments of 300
					for range 4 {
						leave(plain, 0)
					}
				}
				q.leave(false)
				q.leave(false)
				expect(forwarded, "with none on its way")
			})
		}
	}
}
