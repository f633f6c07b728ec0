package wire

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/tuntest"
)

// TestReject checks that replies to rejected whole packets and to rejected datagrams in
// fragments leave from the ingress side, and that the frames count as dropped.
func TestReject(t *testing.T) {
	policy := &filter.Policy{Default: verdict.Reject}
	run(t, policy, func(b *testWire) {
		whole := packettest.UDP(client4, server4, packettest.Body(100))
		whole.Tags = []packet.Tag{{TPID: 0x8100, TCI: 5}}
		fragments := packettest.UDP(client6, server6, packettest.Body(2000)).Fragments(1448)
		reset := packettest.TCP(client4, server4, 2).Frame()
		b.send(verdict.Inside, whole.Frame(), fragments[1], fragments[0], reset)
		b.expect(verdict.Outside)
		b.expect(verdict.Inside, replyTo(t, whole.Frame()), replyTo(t, fragments[0]), replyTo(t, reset))
		b.counted(verdict.Inside, 4, 0, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 4})
		if n := b.Counters(verdict.Inside).Answered; n != 3 {
			t.Errorf("%d answered, want 3", n)
		}
	})
}

// TestRepliesAreLimited rejects more datagrams than are answered per second.
func TestRepliesAreLimited(t *testing.T) {
	run(t, &filter.Policy{Default: verdict.Reject}, func(b *testWire) {
		frame := packettest.UDP(client4, server4, nil).Frame()
		for range replyRate.Count + 100 {
			b.send(verdict.Inside, frame)
		}
		if n := b.Counters(verdict.Inside).Answered; n != uint64(replyRate.Count) {
			t.Errorf("%d answered, want %d", n, replyRate.Count)
		}
		time.Sleep(10 * time.Millisecond)
		b.send(verdict.Inside, frame)
		if n := b.Counters(verdict.Inside).Answered; n <= uint64(replyRate.Count) {
			t.Errorf("%d answered later", n)
		}
	})
}

// TestRejectedFrameIsReportedAsItArrived rejects a frame whose checksum was left to the NIC. The
// reply quotes the right checksum, and the observer sees the frame as it arrived.
func TestRejectedFrameIsReportedAsItArrived(t *testing.T) {
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
