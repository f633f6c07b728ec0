package wire

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/packettest/evasion"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// keeper is a lane that keeps the frames that it is to write.
type keeper struct {
	script
	frames []evasion.Frame
	at     time.Duration
	from   verdict.Side
}

func (k *keeper) Write(frames []tun.Frame) (refused int, err error) {
	for _, f := range frames {
		k.frames = append(k.frames, evasion.Frame{At: k.at, From: k.from, Data: bytes.Clone(f.Data)})
	}
	return 0, nil
}

// scriptOf encodes frames for a fuzz target. Each frame has its side and the seconds before it,
// its length, and its bytes.
func scriptOf(mode byte, frames []evasion.Frame) []byte {
	b := []byte{mode}
	at := time.Duration(0)
	for _, f := range frames {
		b = append(b, byte(f.From)|byte((f.At-at)/time.Second)<<1)
		b = binary.BigEndian.AppendUint16(b, uint16(len(f.Data)))
		b = append(b, f.Data...)
		at = f.At
	}
	return b
}

// framesOf decodes a script. It corrects the checksums of IPv4 headers, since the wire drops frames
// with wrong ones, and a fuzzer cannot find the right ones.
func framesOf(b []byte) (frames []evasion.Frame) {
	at := time.Duration(0)
	for len(b) >= 3 {
		at += time.Duration(b[0]>>1) * time.Second
		n := min(int(binary.BigEndian.Uint16(b[1:])), len(b)-3)
		f := evasion.Frame{At: at, From: verdict.Side(b[0] & 1), Data: bytes.Clone(b[3 : 3+n])}
		b = b[3+n:]
		var p packet.Parsed
		if p.Decode(f.Data) == verdict.IPv4Checksum {
			h := header.IPv4(f.Data[p.Network:])
			h.SetChecksum(0)
			h.SetChecksum(^checksum.Checksum(h[:h.HeaderLength()], 0))
		}
		frames = append(frames, f)
	}
	return frames
}

// fuzzModes are the ways to process fragments, by the first byte of a script.
var fuzzModes = []Config{
	{Mode: packet.ModeReassemble}, {Mode: packet.ModeReassemble, Emit: packet.EmitWhole}, {Mode: packet.ModeValidate},
	{Mode: packet.ModeDrop}, {Mode: packet.ModeFirstAcceptRest}, {Mode: packet.ModeFirstDropRest},
}

// FuzzFrameToOutput sends any frames through a wire, from both sides and over time. Each frame
// is counted once. Each frame that leaves is one that arrived or, rebuilt, fits the MTU. No
// host can reassemble a datagram that the policy denies from the frames that left, however it
// handles overlaps.
func FuzzFrameToOutput(f *testing.F) {
	for i, c := range evasion.Cases() {
		for _, frames := range c.Frames {
			if b := scriptOf(byte(i%len(fuzzModes)), frames); len(b) > 1 && len(b) < 1<<13 {
				f.Add(b)
			}
		}
	}
	full := packettest.UDP(client4, server4, packettest.Body(1472)).Frame()
	for mode := range fuzzModes { // with the longest trailer that is kept, and a longer one
		f.Add(scriptOf(byte(mode), []evasion.Frame{{Data: append(full[:len(full):len(full)], make([]byte, 4)...)}, {Data: append(full[:len(full):len(full)], make([]byte, 5)...)}}))
	}
	policy := catalogue(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 {
			return
		}
		c := fuzzModes[int(script[0])%len(fuzzModes)]
		frames := framesOf(script[1:])
		out := forward(t, c, policy, frames)
		for _, o := range out {
			switch came := slices.ContainsFunc(frames, func(in evasion.Frame) bool {
				return in.From == o.From && leavesAs(in.Data, o.Data)
			}); {
			case c.Emit == packet.EmitOriginal && !came:
				t.Fatalf("%v: a frame left that had not arrived", c.Mode)
			case c.Emit == packet.EmitWhole:
				var p packet.Parsed
				if why := p.Decode(o.Data); why != verdict.Passed || !came && len(o.Data)-p.Network > 1500 {
					t.Fatalf("rebuilt: %v, %d bytes", why, len(o.Data)-p.Network)
				}
			}
		}
		if c.Mode == packet.ModeReassemble || c.Mode == packet.ModeValidate {
			mustBeAllowed(t, policy, out)
		}
	})
}

// leavesAs reports whether a frame left as it arrived, or without the trailer that made it
// longer than an interface with the MTU accepts.
func leavesAs(in, out []byte) bool {
	var p packet.Parsed
	const longest = 1500 + ethernetHeader + vlanTag
	return bytes.Equal(in, out) || len(in) > longest && bytes.HasPrefix(in, out) && p.Decode(out) == verdict.Passed && p.End == len(out)
}

// forward sends frames through a wire without devices, and returns the frames that leave.
func forward(t *testing.T, c Config, policy *filter.Policy, frames []evasion.Frame) []evasion.Frame {
	t.Helper()
	k := &keeper{}
	c.Sides = sides(k, k)
	c.Policy, c.Fragments = policy, limits()
	c.Fragments.MaxDatagrams = 1000 // one shard
	b := New(c)
	begin := time.Unix(0, 0)
	for _, f := range frames {
		k.at, k.from = f.At, f.From
		d := b.sides[f.From].directions[0]
		d.ingress.now = func() time.Time { return begin.Add(f.At) }
		d.take(&tun.Frame{Data: f.Data})
		d.flush()
	}
	if b.table != nil {
		b.table.Close()
		if u := b.Usage(); u.Bytes != 0 || u.Datagrams != 0 {
			t.Fatalf("after Close, the table charges for %+v", u)
		}
	}
	var received uint64
	for side := range verdict.Side(verdict.Sides) {
		s := b.Counters(side)
		if s.Waiting != 0 || s.Dropped[verdict.FragmentDisagreement] != 0 {
			t.Fatalf("from %v: %+v", side, s)
		}
		received += s.Received()
	}
	if received != uint64(len(frames)) {
		t.Fatalf("%d of %d frames counted", received, len(frames))
	}
	return k.frames
}

// mustBeAllowed has hosts reassemble the frames that left. The hosts are strict. In a host that
// accepts overlaps in IPv6 and still holds a part of an older datagram, a longer header chain
// can seem to end in that part.
func mustBeAllowed(t *testing.T, policy *filter.Policy, out []evasion.Frame) {
	t.Helper()
	for _, host := range evasion.Hosts() {
		if host.Far || host.Timeout != 60*time.Second {
			continue
		}
		host.Strict = true
		for _, d := range host.Receive(out) {
			var p packet.Parsed
			p.Decode(d.Frame)
			if v := judged(policy, &p); v.Action != verdict.Accept {
				t.Fatalf("%s reassembles a datagram that the policy denies, %v: % x", host.Name, v, d.Frame[:min(len(d.Frame), 100)])
			}
		}
	}
}
