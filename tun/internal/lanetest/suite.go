package lanetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/tun"
)

// Limits that no kind of lane exceeds.
const (
	buffers = 1024 // frames that a lane holds
	writes  = 1024 // frames that a lane submits at once
)

type laneTest struct {
	name string
	run  func(*testing.T, *Rig)
}

// TestLanes checks what every kind of lane must do, also a lane in memory.
func TestLanes(t *testing.T, each Each) { run(t, each, laneTests) }

func run(t *testing.T, each Each, tests []laneTest) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { each(t, tt.run) })
	}
}

var laneTests = []laneTest{
	{"FramesPass", framesPass},
	{"OthersFramesPass", othersFramesPass},
	{"LentFramesLast", lentFramesLast},
	{"Reply", reply},
	{"CloseWakesRead", closeWakesRead},
	{"CloseBeforeRead", closeBeforeRead},
	{"HoldBeforeRead", holdBeforeRead},
	{"HoldWakesRead", holdWakesRead},
	{"HoldUnderLoad", holdUnderLoad},
	{"HoldThenClose", holdThenClose},
	{"SegmentsTravelAsOne", segmentsTravelAsOne},
}

// framesPass sends more frames than a lane has buffers.
func framesPass(t *testing.T, r *Rig) {
	stop := r.Forward(Unchanged)
	var frames [][]byte
	for i := range 3 * buffers {
		frames = append(frames, Number(i, Lengths[i%len(Lengths)]))
	}
	r.Through(t, frames)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// othersFramesPass writes frames of the test among those that Read returned, and more of them in
// one Write than a lane submits at once.
func othersFramesPass(t *testing.T, r *Rig) {
	const extra = writes + 100
	stop := r.Forward(func(_ tun.Lane, frames []tun.Frame) (out []tun.Frame) {
		for _, f := range frames {
			out = append(out, f)
			number := int(binary.BigEndian.Uint32(f.Data[14:]))
			for i := range extra {
				out = append(out, tun.Frame{Data: Number(number+1+i, Lengths[i%len(Lengths)])})
			}
		}
		return out
	})
	for round := range 3 {
		var want [][]byte
		first := Number(round*10000, 100)
		want = append(want, first)
		for i := range extra {
			want = append(want, Number(round*10000+1+i, Lengths[i%len(Lengths)]))
		}
		if err := r.Send(tun.Frame{Data: first}); err != nil {
			t.Fatal(err)
		}
		r.Expect(t, want...)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// lentFramesLast writes the same frames twice: the first Write must not change them.
func lentFramesLast(t *testing.T, r *Rig) {
	stop := r.Forward(func(l tun.Lane, frames []tun.Frame) []tun.Frame {
		for range 2 {
			if refused, err := l.Write(frames); refused != 0 || err != nil {
				t.Error(refused, err)
			}
		}
		return nil
	})
	f := Number(7, 200)
	if err := r.Send(tun.Frame{Data: f}); err != nil {
		t.Fatal(err)
	}
	r.Expect(t, f, f)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// reply writes frames to the device that the lane reads.
func reply(t *testing.T, r *Rig) {
	stop := r.Forward(func(l tun.Lane, frames []tun.Frame) []tun.Frame {
		for _, f := range frames {
			if err := l.Reply(tun.Frame{Data: append([]byte{}, f.Data...)}); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	f := Number(3, 100)
	if err := r.Send(tun.Frame{Data: f}); err != nil {
		t.Fatal(err)
	}
	got, err := r.Replies()
	if err != nil || !bytes.Equal(got.Data, f) {
		t.Errorf("%v: %.40x", err, got.Data)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if r.Space != nil && r.Lanes[0].Reply(tun.Frame{Data: f}) == nil {
		t.Error("a closed lane replies")
	}
}

func closeWakesRead(t *testing.T, r *Rig) {
	stop := r.Forward(Unchanged)
	f := Number(1, 60)
	if err := r.Send(tun.Frame{Data: f}); err != nil {
		t.Fatal(err)
	}
	r.Expect(t, f) // then the lane waits in a Read, or soon will
	var group sync.WaitGroup
	for range 4 {
		for _, l := range r.Lanes {
			group.Go(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, l := range r.Lanes {
		if _, err := l.Read(); !errors.Is(err, tun.ErrClosed) {
			t.Errorf("a closed lane reads %v", err)
		}
	}
}

func closeBeforeRead(t *testing.T, r *Rig) {
	for _, l := range r.Lanes {
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Error(err)
		}
		if _, err := l.Read(); !errors.Is(err, tun.ErrClosed) {
			t.Errorf("a closed lane reads %v", err)
		}
	}
}

// segmentsTravelAsOne sends frames that a NIC would segment, and expects them unchanged.
func segmentsTravelAsOne(t *testing.T, r *Rig) {
	long := func(d packettest.Datagram) packettest.Datagram {
		d.Payload = append(d.Payload, packettest.Body(40000)...)
		return d
	}
	udp := func(client, server netip.AddrPort) packettest.Datagram {
		return packettest.UDP(client, server, packettest.Body(30000))
	}
	tests := []struct {
		name   string
		d      packettest.Datagram
		gso    uint8
		offset int
	}{
		{"tcp over ipv4", long(packettest.TCP(Client4, Server4, 16)), tun.GSOTCPv4, 16},
		{"tcp over ipv6", long(packettest.TCP(Client6, Server6, 16)), tun.GSOTCPv6, 16},
		{"udp over ipv4", udp(Client4, Server4), tun.GSOUDP, 6},
		{"udp over ipv6", udp(Client6, Server6), tun.GSOUDP, 6},
		{"none", packettest.UDP(Client4, Server4, packettest.Body(1000)), tun.GSONone, 6},
	}
	if !r.Offload {
		return
	}
	stop := r.Forward(Unchanged)
	for _, tt := range tests {
		f := Partial(tt.d, tt.offset)
		if f.Offload.GSO = tt.gso; tt.gso != tun.GSONone {
			f.Offload.SegmentSize = 1000
		}
		if err := r.Send(f); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got, err := r.Receive()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		// The kernel may choose another number of bytes of linear memory.
		got.Offload.HeaderLength = f.Offload.HeaderLength
		if !bytes.Equal(got.Data, f.Data) || got.Offload != f.Offload {
			t.Errorf("%s: %d bytes became %d, %+v became %+v", tt.name, len(f.Data), len(got.Data), f.Offload, got.Offload)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
