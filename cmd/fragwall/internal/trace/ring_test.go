package trace

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
	"fragwall/wire"
)

// asked is an observer that wants every decision and calls itself with it.
type asked func(*wire.Decision)

func (a asked) Wants(*filter.Table, filter.Verdict, *packet.Parsed) wire.Reporter { return a }
func (a asked) Decided(d *wire.Decision)                                          { a(d) }

// decided calls f with the decisions on datagrams. If fragment is not 0, the datagrams are cut
// into fragments of that many bytes.
func decided(t testing.TB, fragment int, f func(*wire.Decision), datagrams ...packettest.Datagram) {
	t.Helper()
	end := wire.SideConfig{Lanes: []tun.Lane{tuntest.Discard}, MTU: 65535}
	s := wire.NewStepper(wire.Config{Sides: [verdict.Sides]wire.SideConfig{end, end}, Policy: policy(), Mode: packet.ModeReassemble, Fragments: limits(), Observer: asked(f)})
	defer s.Close()
	for _, d := range datagrams {
		frames := [][]byte{d.Frame()}
		if fragment > 0 {
			frames = d.Fragments(fragment)
		}
		for _, frame := range frames {
			s.Forward(verdict.Inside, tun.Frame{Data: frame}, time.Unix(1, 0))
		}
	}
}

// offered returns the n-th datagram that a writer offers. The source port is the writer, and
// the payload length is n, so that a reader can tell which datagram it is.
func offered(writer, n int) packettest.Datagram {
	d := packettest.UDP(netip.AddrPortFrom(client.Addr(), uint16(writer)), server, packettest.Body(n))
	d.ID = uint32(n)
	return d
}

const (
	ringSnap     = 5000 // bytes; at most three slots
	ringFragment = 1480 // bytes; only odd writers fragment
)

// checker is a sink that compares the frames of each decision with the datagram that was
// offered.
type checker struct {
	t      *testing.T
	frames [][]byte // of the last decision
	count  int
}

func (c *checker) Decision(*Decision) error {
	c.check()
	return nil
}

func (c *checker) Frame(f *Frame) error {
	c.frames = append(c.frames, bytes.Clone(f.Data))
	c.count++
	return nil
}

func (*checker) Flush() error { return nil }

// check compares the frames of the last decision.
func (c *checker) check() {
	if len(c.frames) == 0 {
		return
	}
	var p packet.Parsed
	p.Decode(append(bytes.Clone(c.frames[0]), make([]byte, 10000)...)) // pad: the frame may be cut at ringSnap
	d := offered(int(p.SrcPort), int(binary.BigEndian.Uint16(c.frames[0][p.Upper+4:]))-packet.SizeUDP)
	want := [][]byte{d.Frame()}
	if p.SrcPort%2 == 1 {
		want = d.Fragments(ringFragment)
	}
	for i := range want {
		want[i] = want[i][:min(len(want[i]), ringSnap)]
	}
	if !slices.EqualFunc(c.frames, want, bytes.Equal) {
		c.t.Errorf("%d frames differ from those offered", len(c.frames))
	}
	c.frames = c.frames[:0]
}

// TestRingOfMany offers decisions of different sizes from several goroutines at the same time,
// faster than the reader takes them.
func TestRingOfMany(t *testing.T) {
	const writers, each = 4, 3000
	r := newRing(ringSnap)
	var writing sync.WaitGroup
	var frames atomic.Int64
	for writer := range writers {
		var datagrams []packettest.Datagram
		for n := range each {
			datagrams = append(datagrams, offered(writer, 1490+n))
		}
		writing.Go(func() {
			decided(t, writer%2*ringFragment, func(d *wire.Decision) {
				r.offer(d, time.Unix(1, 0))
				frames.Add(int64(d.Frames()))
			}, datagrams...)
		})
	}
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	sink := &checker{t: t}
	w, d := writer{ring: r}, Decoder{Sink: sink}
	take := func() {
		for s := r.next(); s != nil; s = r.next() {
			w.append(s)
			r.release()
		}
		if w.left > 0 {
			return
		}
		if err := d.Decode(w.items); err != nil {
			t.Error(err)
		}
		w.items = w.items[:0]
	}
	for running := true; running; runtime.Gosched() {
		select {
		case <-done:
			running = false
		default:
		}
		take()
	}
	sink.check()
	if missed := r.missed.Load(); int64(sink.count)+int64(missed) != frames.Load() || sink.count == 0 {
		t.Errorf("read %d frames and missed %d, of %d", sink.count, missed, frames.Load())
	}
}

// TestFullRing fills a ring without a reader.
func TestFullRing(t *testing.T) {
	d := packettest.UDP(client, server, packettest.Body(4000)) // two slots per frame
	r := newRing(MaxSnapLength)
	decided(t, 0, func(decision *wire.Decision) {
		for range ringSlots {
			r.offer(decision, time.Unix(1, 0))
		}
	}, d)
	if got := r.missed.Load(); got != ringSlots/2 {
		t.Errorf("%d missed, want %d", got, ringSlots/2)
	}
}

// TestOfferAllocatesNothing checks that offering a whole packet allocates nothing, whether it
// is taken or missed.
func TestOfferAllocatesNothing(t *testing.T) {
	r := newRing(MaxSnapLength)
	decided(t, 0, func(d *wire.Decision) {
		at := time.Unix(1, 0)
		if n := testing.AllocsPerRun(2*ringSlots, func() { r.offer(d, at) }); n != 0 || r.missed.Load() == 0 {
			t.Errorf("%v allocations, %d missed", n, r.missed.Load())
		}
	}, packettest.UDP(client, server, nil))
}

// BenchmarkOffer offers a small packet to a ring that is read.
func BenchmarkOffer(b *testing.B) {
	r := newRing(256)
	decided(b, 0, func(d *wire.Decision) {
		for b.Loop() {
			r.offer(d, time.Unix(1, 0))
			r.release()
		}
	}, packettest.UDP(client, server, packettest.Body(22)))
}
