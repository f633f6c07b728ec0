package wire

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// transcript is an observer, and a lane that delivers one batch: it notes what
// is written and what is reported.
type transcript struct {
	script
	lines []string
}

func (s *transcript) Write(frames []tun.Frame) (int, error) {
	s.lines = append(s.lines, fmt.Sprintf("%d frames written", len(frames)))
	return 0, nil
}

func (s *transcript) Wants(*filter.Table, filter.Verdict, *packet.Parsed) Reporter { return s }

func (s *transcript) Decided(d *Decision) {
	s.lines = append(s.lines, fmt.Sprintf("%v of %d frames to %d", d.Verdict.Action, d.Frames(), d.Parsed().DstPort))
}

// TestReportsFollowTheWrite has a batch of which all kinds of decisions are
// reported: once all of it is written, in the order in which they were made.
func TestReportsFollowTheWrite(t *testing.T) {
	to := func(port uint16) packettest.Datagram {
		d := packettest.UDP(client4, server4, packettest.Body(2000))
		d.ID = uint32(port)
		d.Payload[2], d.Payload[3] = byte(port>>8), byte(port)
		return d
	}
	parts := func(d packettest.Datagram) [2][]byte { return [2][]byte(d.Fragments(1448)) }
	accepted, denied, waits := parts(to(53)), parts(to(54)), parts(to(55))
	for mode, want := range map[packet.Mode][]string{
		packet.ModeReassemble: {"2 frames written", "drop of 2 frames to 54", "accept of 2 frames to 53", "drop of 1 frames to 0"},
		packet.ModeValidate: {"2 frames written", "drop of 1 frames to 54", "drop of 1 frames to 0", "accept of 1 frames to 53",
			"accept of 1 frames to 53", "drop of 1 frames to 0"},
	} {
		t.Run(mode.String(), func(t *testing.T) {
			s := &transcript{}
			for _, f := range [][]byte{denied[0], waits[1], accepted[0], denied[1], accepted[1], waits[1]} {
				s.batch = append(s.batch, tun.Frame{Data: f})
			}
			if mode == packet.ModeValidate { // one waits for the first
				s.batch[2], s.batch[4] = s.batch[4], s.batch[2]
			}
			s.left, s.end = 1, tun.ErrClosed
			b := New(Config{Sides: sides(s, nil), Policy: onlyPort53(), Mode: mode, Fragments: limits(), Observer: s})
			_ = b.sides[verdict.Inside].lanes[0].run()
			if !slices.Equal(s.lines, want) {
				t.Errorf("%q\nwant %q", s.lines, want)
			}
			b.closeTable()
		})
	}
}

// TestEvictionIsReportedInOrder has a fragment evict another one between two
// whole packets of its batch.
func TestEvictionIsReportedInOrder(t *testing.T) {
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		s := &transcript{script: script{left: 1, end: tun.ErrClosed}}
		denied := packettest.UDP(client4, server4, nil)
		denied.Payload[3] = 54
		evicted := packettest.UDP(client4, server4, packettest.Body(2000))
		waits := packettest.UDP(client6, server6, packettest.Body(2000))
		for _, f := range [][]byte{evicted.Fragments(1448)[1], denied.Frame(), waits.Fragments(1448)[1], packettest.UDP(client4, server4, nil).Frame()} {
			s.batch = append(s.batch, tun.Frame{Data: f})
		}
		c := Config{Sides: sides(s, nil), Policy: onlyPort53(), Mode: mode, Fragments: limits(), Observer: s}
		c.Fragments.MaxDatagrams = 1
		b := New(c)
		_ = b.sides[verdict.Inside].lanes[0].run()
		b.closeTable()
		want := []string{"1 frames written", "drop of 1 frames to 54", "drop of 1 frames to 0", "accept of 1 frames to 53", "drop of 1 frames to 0"}
		if !slices.Equal(s.lines, want) {
			t.Errorf("%v: %q\nwant %q", mode, s.lines, want)
		}
		if waiting := b.Counters(verdict.Inside).Waiting; waiting != 0 {
			t.Errorf("%v: %d frames wait", mode, waiting)
		}
	}
}

// TestReportedFramesAreLent compares the frames that are reported with those
// that came in, which the lane overwrites as soon as it reads again.
func TestReportedFramesAreLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var came, reported [][]byte
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		b := New(Config{Sides: memorySides(ports), Policy: onlyPort53(), Mode: packet.ModeReassemble, Fragments: limits(),
			Observer: observerFunc(func(d *Decision) {
				for i := range d.Frames() {
					reported = append(reported, slices.Clone(d.Frame(i)))
				}
			})})
		for port := range uint16(100) {
			d := packettest.UDP(client4, server4, packettest.Body(int(port)))
			d.Payload[3] = byte(port)
			came = append(came, d.Frame())
		}
		came = append(came, packettest.UDP(client6, server6, packettest.Body(2000)).Fragments(1448)...)
		ports[verdict.Inside].Inject(came...)
		done := make(chan error, 1)
		go func() { done <- b.Run(t.Context()) }()
		synctest.Wait()
		for i := range came {
			if len(reported) != len(came) || string(reported[i]) != string(came[i]) {
				t.Fatalf("%d frames reported of %d; frame %d is not what came", len(reported), len(came), i)
			}
		}
		b.closeLanes()
		<-done
	})
}

// TestRejectedFrameIsReportedAsItCame has a frame rejected whose checksum was left
// for the NIC: the reply quotes the right one, and the observer sees the frame.
func TestRejectedFrameIsReportedAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frame := packettest.UDP(client4, server4, packettest.Body(100)).Frame()
		left := tun.Frame{Data: slices.Clone(frame), Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 34, ChecksumOffset: udpChecksum}}
		copy(left.Data[40:], []byte{1, 2})
		complete := tun.Frame{Data: slices.Clone(left.Data), Offload: left.Offload}
		complete.CompleteChecksum()
		ports := [verdict.Sides]*tuntest.Port{tuntest.NewPort("inside"), tuntest.NewPort("outside")}
		var reported []byte
		b := New(Config{Sides: memorySides(ports), Policy: &filter.Policy{Default: verdict.Reject},
			Observer: observerFunc(func(d *Decision) { reported = slices.Clone(d.Frame(0)) })})
		ports[verdict.Inside].InjectFrame(left)
		done := make(chan error, 1)
		go func() { done <- b.Run(t.Context()) }()
		synctest.Wait()
		if string(reported) != string(left.Data) {
			t.Errorf("% x", reported)
		}
		reply, err := ports[verdict.Inside].Next(t.Context())
		if err != nil || string(reply.Data) != string(replyTo(t, complete.Data)) {
			t.Errorf("% x, %v", reply.Data, err)
		}
		b.closeLanes()
		<-done
	})
}
