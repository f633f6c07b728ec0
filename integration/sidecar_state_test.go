package integration_test

import "testing"

// sidecarStateful accepts new flows from the pod only.
var sidecarStateful = pathKey + `
[inside]
tap = "fw-in"
[outside]
tap = "fw-out"
[policy]
stateful = true
[[rule]]
name = "out"
action = "accept"
from = "inside"
`

// TestSidecarRestart restarts a sidecar, as an update of its container image does. Connections that the
// pod opened must continue: idle ones, and ones with continuous data in both directions, even while no
// sidecar runs. The outside must not be able to open connections.
func TestSidecarRestart(t *testing.T) {
	p, state := routedPod(t), t.TempDir()
	b := p.startSidecar(t, sidecarStateful, state)
	var idle []*connected
	var busy []*talk
	for _, ipv6 := range []bool{false, true} {
		idle = append(idle, openTCP(t, p.workload, p.peer, ipv6))
		c := &talk{failed: make(chan error, 2)}
		ends := openTCP(t, p.workload, p.peer, ipv6)
		go c.speak(ends.client, ends.server)
		c.goesOn(t)
		busy = append(busy, c)
	}
	for range 2 {
		b.end(t)
		for _, c := range busy {
			c.goesOn(t)
		}
		b = p.startSidecar(t, sidecarStateful, state)
		for _, c := range idle {
			c.answers(t)
		}
		for _, c := range busy {
			c.goesOn(t)
		}
		refuses(t, p.peer, p.workload)
	}
	b.end(t)
}
