package wire

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

var families = map[string]struct{ client, server netip.AddrPort }{"ipv4": {client4, server4}, "ipv6": {client6, server6}}

// inEachFamily runs a test with an allowed and a denied datagram of 4,000
// bytes in three fragments.
func inEachFamily(t *testing.T, c Config, test func(b *box, allowed, denied [][]byte)) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			runConfig(t, c, func(b *box) {
				allowed := packettest.UDP(f.client, f.server, packettest.Body(4000))
				allowed.ID = 1
				denied := packettest.UDP(f.client, netip.AddrPortFrom(f.server.Addr(), 54), packettest.Body(4000))
				denied.ID = 2
				test(b, allowed.Fragments(1448), denied.Fragments(1448))
			})
		})
	}
}

func TestModeValidate(t *testing.T) {
	inEachFamily(t, Config{Policy: onlyPort53(), Mode: packet.ModeValidate}, func(b *box, allowed, denied [][]byte) {
		// In order, each fragment goes on at once.
		for _, frame := range allowed {
			b.send(verdict.Inside, frame)
			b.expect(verdict.Outside, frame)
		}
		b.counted(verdict.Inside, 3, 3, 0, nil)
		// Ahead of the first they wait.
		b.send(verdict.Inside, allowed[2], denied[1], allowed[1])
		b.expect(verdict.Outside)
		b.counted(verdict.Inside, 6, 3, 3, nil)
		b.send(verdict.Inside, denied[0], allowed[0], denied[2])
		b.expect(verdict.Outside, allowed...)
		b.counted(verdict.Inside, 9, 6, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 3})
	})
}

// TestValidateTimersRun lets the time of a fragment pass whose first does not
// come.
func TestValidateTimersRun(t *testing.T) {
	inEachFamily(t, Config{Policy: acceptAll(), Mode: packet.ModeValidate}, func(b *box, allowed, _ [][]byte) {
		b.send(verdict.Inside, allowed[1])
		time.Sleep(time.Minute + expiryInterval)
		synctest.Wait()
		b.counted(verdict.Inside, 1, 0, 0, map[verdict.Reason]uint64{verdict.FragmentTimeout: 1})
	})
}

func TestModeFirstAcceptRest(t *testing.T) {
	inEachFamily(t, Config{Policy: onlyPort53(), Mode: packet.ModeFirstAcceptRest}, func(b *box, allowed, denied [][]byte) {
		b.send(verdict.Inside, allowed[1], allowed[0], denied[0], denied[1])
		b.expect(verdict.Outside, allowed[1], allowed[0], denied[1])
		b.counted(verdict.Inside, 4, 3, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 1})
	})
}

func TestModeFirstDropRest(t *testing.T) {
	inEachFamily(t, Config{Policy: onlyPort53(), Mode: packet.ModeFirstDropRest}, func(b *box, allowed, denied [][]byte) {
		b.send(verdict.Inside, allowed[1], allowed[0], denied[0], denied[1])
		b.expect(verdict.Outside, allowed[0])
		b.counted(verdict.Inside, 4, 1, 0, map[verdict.Reason]uint64{verdict.PolicyDefault: 1, verdict.FragmentMode: 2})
	})
}

// TestEmitWhole has datagrams leave in one piece, and in larger ones than they
// came in.
func TestEmitWhole(t *testing.T) {
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			runConfig(t, Config{Policy: onlyPort53(), Mode: packet.ModeReassemble, Emit: packet.EmitWhole}, func(b *box) {
				short := packettest.UDP(f.client, f.server, packettest.Body(1000))
				whole := short.Frame()
				long := packettest.UDP(f.client, f.server, packettest.Body(4000))
				long.ID = 7
				b.send(verdict.Inside, short.Fragments(256)...)
				b.expect(verdict.Outside, whole)

				first := long.Fragment(0, long.Payload[:64], true)
				second := long.Fragment(64, long.Payload[64:64+1400], true)
				rest := [][]byte{
					long.Fragment(1464, long.Payload[1464:1464+1400], true),
					long.Fragment(2864, long.Payload[2864:], false),
				}
				b.send(verdict.Inside, first, second, rest[0], rest[1])
				b.expect(verdict.Outside, long.Fragments(1400)...)
				b.counted(verdict.Inside, 8, 8, 0, nil)

				mixed := packettest.UDP(f.client, f.server, packettest.Body(1000))
				mixed.ID = 9
				frames := mixed.Fragments(800)
				mixed.TrafficClass = 3
				b.send(verdict.Inside, frames[0], mixed.Fragments(800)[1])
				b.expect(verdict.Outside)
				b.counted(verdict.Inside, 10, 8, 0, map[verdict.Reason]uint64{verdict.FragmentECN: 2})
			})
		})
	}
}

// TestRefusedRebuiltFrames has a device refuse all, of which there is less than
// came in.
func TestRefusedRebuiltFrames(t *testing.T) {
	b, d := scripted(&script{refuseEach: 1})
	defer b.table.Close()
	d.fragments = reassembly{d.fragments.(reassembly).Reassembler, packet.EmitWhole}
	for _, frame := range packettest.UDP(client4, server4, packettest.Body(1000)).Fragments(256) {
		d.take(&tun.Frame{Data: frame})
	}
	d.flush()
	s := b.Counters(verdict.Inside)
	if s.Received() != 4 || s.Waiting != 0 || s.Dropped[verdict.EgressFailed] == 0 {
		t.Errorf("%+v", s)
	}
}

// TestPolicyOfTheMoment replaces the policy between a datagram's fragments: in
// reassembly the last one's counts, in validation that of the first.
func TestPolicyOfTheMoment(t *testing.T) {
	for mode, passes := range map[packet.Mode]bool{packet.ModeReassemble: false, packet.ModeValidate: true} {
		inEachFamily(t, Config{Policy: acceptAll(), Mode: mode}, func(b *box, allowed, _ [][]byte) {
			b.send(verdict.Inside, allowed[0], allowed[1])
			b.policy.Store(filter.Compile(&filter.Policy{}, nil))
			b.send(verdict.Inside, allowed[2])
			if passes {
				b.expect(verdict.Outside, allowed...)
			} else {
				b.expect(verdict.Outside)
			}
		})
	}
}
