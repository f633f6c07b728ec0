package integration_test

import (
	"path/filepath"
	"testing"
)

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
		c.awaitProgress(t)
		busy = append(busy, c)
	}
	for range 2 {
		b.end(t)
		for _, c := range busy {
			c.awaitProgress(t)
		}
		b = p.startSidecar(t, sidecarStateful, state)
		for _, c := range idle {
			c.answers(t)
		}
		for _, c := range busy {
			c.awaitProgress(t)
		}
		refuses(t, p.peer, p.workload)
	}
	b.end(t)
}

// TestSidecarNoState restarts a sidecar with --no-state. The sidecar must not save flows, and must remove
// those that were saved before. It must still restore the NIC.
func TestSidecarNoState(t *testing.T) {
	p, state := routedPod(t), t.TempDir()
	b := p.startSidecar(t, sidecarStateful, state)
	idle := openTCP(t, p.workload, p.peer, false)
	idle.answers(t)
	b.end(t)
	saved := func() []string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(state, "*.flows"))
		must(t, err)
		return files
	}
	if files := saved(); len(files) != 1 {
		t.Errorf("files with flows: %q, want one", files)
	}
	b = p.startSidecar(t, sidecarStateful, state, "--no-state")
	openTCP(t, p.workload, p.peer, false).answers(t)
	b.end(t)
	if files := saved(); len(files) != 0 {
		t.Errorf("files with flows after --no-state: %q", files)
	}
}
