package integration_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"fragwall/integration/meter"
)

// handoverShapes returns the configurations of TestReplace by name: with each join of a NIC and each mode
// that forwards fragments. The short test has two of the four combinations.
func handoverShapes() map[string]string {
	joins := map[string]string{"redirect": "join = \"redirect\"\n", "bridge": "join = \"bridge\"\n"}
	modes := map[string]string{
		"reassemble": "[fragments]\nmode = \"reassemble\"\n",
		"validate":   "[fragments]\nmode = \"validate\"\n",
	}
	shape := func(join, mode string) string {
		return strings.Replace(devices, "[outside]", joins[join]+"[outside]", 1) + joins[join] + stateful + modes[mode]
	}
	shapes := map[string]string{
		"redirect, reassemble": shape("redirect", "reassemble"),
		"bridge, validate":     shape("bridge", "validate"),
	}
	if *fullHandover > 0 {
		shapes["redirect, validate"] = shape("redirect", "validate")
		shapes["bridge, reassemble"] = shape("bridge", "reassemble")
	}
	return shapes
}

// TestReplace replaces the process repeatedly under load. The traffic must not be affected, and idle flows
// must continue.
func TestReplace(t *testing.T) {
	s := handoverScale()
	for name, config := range handoverShapes() {
		t.Run(name, func(t *testing.T) {
			n, before := newMiddle(t)
			b := startBox(t, n, config)
			idle := b.acquaint(t, 20)
			b.underLoad(t, s.load, func(m *meter.Meter) {
				for range s.times {
					b.replace(t)
					flows(t, m, s.load, 200*time.Millisecond)
					idle.talk(t)
				}
			})
			b.endAs(t, before)
		})
	}
}

// TestReplaceKilled kills one of the two processes at a random moment of a hand-over. After that, either one
// process forwards or none. When the remaining process or the next one ends, it must restore the NICs.
func TestReplaceKilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	n, before := newMiddle(t)

	b := startBox(t, n, devices+stateful)
	begun := time.Now()
	b.replace(t)
	took := time.Since(begun)
	b.stop(t)
	sameJoints(t, n.Middle, before)

	outcomes := map[string]int{}
	for i := range handoverScale().moments {
		b := startBox(t, n, devices+stateful)
		outcome := b.replaceKilled(t, r, took*3/2)
		outcomes[outcome]++
		if b.hasEnded() {
			b = startBox(t, n, devices+stateful)
		}
		b.forwards(t)
		b.endAs(t, before)
		if t.Failed() {
			t.Fatalf("failed at moment %d: %s", i, outcome)
		}
	}
	t.Logf("a hand-over took %v; %v", took, outcomes)
}

// replaceKilled starts a hand-over, and kills the old or the new process after a random time of up to
// within. The box continues with the other process. The function returns the outcome.
func (b *box) replaceKilled(t *testing.T, r *rand.Rand, within time.Duration) (outcome string) {
	t.Helper()
	processes := [...]*process{b.process, launch(t, b.Middle, nil, "run", "-c", b.file, "--replace")}
	names := [...]string{"old", "new"}
	victim := r.IntN(len(processes))
	moment := time.Duration(r.Int64N(int64(within)))
	time.Sleep(moment)           // the moment of the kill is what the test varies
	_ = processes[victim].Kill() // fails if the process has ended
	processes[victim].wait(t)
	b.process = processes[1-victim]
	outcome = fmt.Sprintf("%s killed, closed", names[victim])
	eventually(t, func() error {
		ended := b.hasEnded()
		sent, arrived := b.probe(t)
		switch {
		case ended && arrived > 0:
			t.Fatalf("after %v, the %s process was killed: both processes have ended, but %d of %d datagrams arrived", moment, names[victim], arrived, sent)
		case ended:
		case arrived < sent:
			return fmt.Errorf("after %v, the %s process was killed: the %s process runs, but %d of %d datagrams arrived; its output:\n%s",
				moment, names[victim], names[1-victim], arrived, sent, b.stderr.String())
		default:
			outcome = fmt.Sprintf("%s killed, %s forwards", names[victim], names[1-victim])
		}
		return nil
	})
	if !b.hasEnded() {
		b.ready(t) // the process forwards before it reports that it is ready
	}
	return outcome
}

// forwards waits until a box forwards all datagrams of a probe.
func (b *box) forwards(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if sent, arrived := b.probe(t); arrived < sent {
			return fmt.Errorf("%d of %d datagrams arrived", arrived, sent)
		}
		return nil
	})
}
