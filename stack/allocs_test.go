//go:build !race

package stack

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/refs"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// TestReassemblyAllocates counts the allocations for a datagram whose fragments arrive in
// order. gVisor makes all of them: without a table there would be just as many, and their
// number does not grow with the number of fragments. The test does not run under the race
// detector, which makes pools drop objects at random.
func TestReassemblyAllocates(t *testing.T) {
	mode := refs.GetLeakMode()
	refs.SetLeakMode(refs.NoLeakChecking) // leak checking allocates
	defer refs.SetLeakMode(mode)
	const byGVisor = 6
	bothFamilies(t, func(t *testing.T, f family) {
		for _, fragments := range []int{2, 6} {
			t.Run(fmt.Sprintf("%d fragments", fragments), func(t *testing.T) {
				b := newBench(t)
				frames := datagram(f, 1, 1448*fragments).Fragments(1448)
				var p packet.Parsed
				got := testing.AllocsPerRun(200, func() {
					for _, frame := range frames {
						p.Decode(frame)
						if d, _ := b.reassembler.Add(frame, &p, verdict.Inside, epoch); d != nil {
							b.release(d)
						}
					}
				})
				if len(frames) != fragments || b.held != 0 || got > byGVisor {
					t.Errorf("%d fragments, %d held: %v allocations per datagram, want at most gVisor's %d", len(frames), b.held, got, byGVisor)
				}
			})
		}
	})
}
