package wire

import (
	"bytes"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// manyFlows is the number of flows in a full table.
const manyFlows = 1_000_000

// withFlows returns a wire with TCP flows, and a function that sends a segment of the i-th.
func withFlows(b *testing.B, flows int) (bump *Bump, touch func(i int)) {
	b.Helper()
	bump = flowWire()
	d := bump.sides[verdict.Inside].directions[0]
	touch = func(i int) {
		src := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		frame := packettest.TCP(netip.AddrPortFrom(src, 40000), server4, header.TCPFlagSyn).Frame()
		d.take(&tun.Frame{Data: frame})
		d.flush()
	}
	for i := range flows {
		touch(i)
	}
	return bump, touch
}

func flowWire() *Bump {
	policy := acceptAll()
	policy.Stateful = true
	return New(Config{Policy: policy, Sides: sides(&script{}, &script{})})
}

// BenchmarkSaveFlows saves and restores a million flows. The unit is all of them.
func BenchmarkSaveFlows(b *testing.B) {
	bump, _ := withFlows(b, manyFlows)
	var saved bytes.Buffer
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			saved.Reset()
			if err := bump.Save(&saved, AllFlows); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(saved.Len())/float64(bump.Policy().Flows()), "bytes/flow")
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			after := flowWire()
			if err := after.Restore(bytes.NewReader(saved.Bytes())); err != nil {
				b.Fatal(err)
			}
			if got, want := after.Policy().Flows(), bump.Policy().Flows(); got != want {
				b.Fatalf("%d flows, want %d", got, want)
			}
		}
	})
}

// BenchmarkSaveChangedFlows saves and restores 10,000 flows of a million, as a hand-over does
// while the wire is held. The unit is all of the 10,000.
func BenchmarkSaveChangedFlows(b *testing.B) {
	bump, touch := withFlows(b, manyFlows)
	var all, changed bytes.Buffer
	if err := bump.Save(&all, AllFlows); err != nil {
		b.Fatal(err)
	}
	change := func(b *testing.B) {
		b.StopTimer()
		for i := range 10_000 {
			touch(i * 97)
		}
		changed.Reset()
		b.StartTimer()
	}
	b.Run("save", func(b *testing.B) {
		for range b.N {
			change(b)
			if err := bump.Save(&changed, ChangedFlows|Rest); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		after := flowWire()
		if err := after.Restore(bytes.NewReader(all.Bytes())); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for range b.N {
			if err := after.Restore(bytes.NewReader(changed.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}
