package wire

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragwall/packet"
)

// copyFlows saves the flows of the wire behind the fast path, which continues.
func (w *twin) copyFlows() {
	w.Helper()
	w.behind.advance(w.at)
	w.copied = &bytes.Buffer{}
	if err := w.behind.Save(w.copied, AllFlows); err != nil {
		w.Fatalf("%v", err)
	}
}

// replace has a new wire take over from the one behind the fast path. For the other wire it is
// a reload.
func (w *twin) replace() {
	w.Helper()
	w.path.now = w.at
	w.behind.advance(w.at)
	w.alone.advance(w.at)
	w.behind.yield()
	parts, streams := AllFlows|Rest, []*bytes.Buffer{{}}
	if w.copied != nil {
		parts, streams = ChangedFlows|Rest, []*bytes.Buffer{w.copied, {}}
	}
	if err := w.behind.Save(streams[len(streams)-1], parts); err != nil {
		w.Fatalf("%v", err)
	}
	policy := w.behind.policy.Load().Policy()
	w.path = newMemoryPath(w.path.mode)
	w.path.now = w.at
	w.behind, w.copied = w.stepper(0, policy, w.path), nil
	w.behind.advance(w.at)
	for _, stream := range streams {
		if err := w.behind.Restore(stream); err != nil {
			w.Fatalf("%v", err)
		}
	}
	w.behind.look()
	w.alone.Reload(policy)
}

// TestReplaceChangesNothing sends random traffic, with reloads and pauses. At random moments, a
// new wire takes over from the one before. The frames that leave, the counters, and the flows
// and fragments are the same as with one wire.
func TestReplaceChangesNothing(t *testing.T) {
	replaced, waited := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		g := &traffic{
			Rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 22)),
			mode: rapid.SampledFrom([]packet.Mode{packet.ModeReassemble, packet.ModeValidate, packet.ModeDrop}).Draw(t, "mode"),
		}
		g.stateful = rapid.Bool().Draw(t, "stateful")
		w := newTwin(t, g.policy(), g.mode)
		for _, frames := range rapid.SliceOfN(rapid.IntRange(0, 120), 1, 4).Draw(t, "frames between replacements") {
			for range frames {
				if g.IntN(60) == 0 {
					w.copyFlows()
				}
				g.step(w)
			}
			waited += w.behind.Usage().Datagrams
			w.replace()
			replaced++
			w.compare()
			if u, want := w.behind.Usage(), w.alone.Usage(); u != want {
				t.Fatalf("after a replacement: %+v, want %+v", u, want)
			}
		}
		for range 60 {
			g.step(w)
		}
		w.at = w.at.Add(2 * time.Minute)
		w.behind.advance(w.at)
		w.alone.advance(w.at)
		w.compare()
	})
	t.Logf("%d replacements, with %d incomplete datagrams", replaced, waited)
	if waited == 0 {
		t.Error("no replacement had incomplete datagrams")
	}
}
