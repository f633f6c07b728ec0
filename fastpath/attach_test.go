package fastpath

import (
	"testing"

	"github.com/cilium/ebpf/link"

	"fragwall/packet/verdict"
)

// slowLink is a link whose detaching takes a grace period.
type slowLink struct {
	link.Link
	meanwhile func()
}

func (l slowLink) Detach() error {
	l.meanwhile()
	return nil
}

func (l slowLink) Close() error { return nil }

// TestDetachBlocksNoLane detaches programs. During the kernel's grace periods, the lanes can
// use the fields that mu guards.
func TestDetachBlocksNoLane(t *testing.T) {
	detached := 0
	f := &FastPath{memory: &memory{config: new(programConfig)}}
	attach := func() {
		for side := range f.links {
			f.owned[side] = true
			f.links[side] = []link.Link{slowLink{meanwhile: func() {
				if detached++; !f.mu.TryLock() {
					t.Error("mu is held while a program is detached")
					return
				}
				f.mu.Unlock()
			}}}
		}
	}
	attach()
	f.Detach(verdict.Inside)
	f.Detach(verdict.Outside)
	attach()
	f.closed = true
	if err := f.Close(); err != nil || detached != 4 {
		t.Errorf("%d links detached, %v; want 4", detached, err)
	}
}
