package wire

import (
	"context"
	"fmt"
	"sync"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// rest makes the directions pause while the wire is held.
type rest struct {
	ended <-chan struct{} // closed at the end of the wire
	stop  func()

	mu sync.Mutex
	// mu guards:
	resting  chan struct{} // receives once from each direction that pauses
	released chan struct{} // closed when they are to continue; nil while the wire is not held
}

func newRest() rest {
	ended := make(chan struct{})
	return rest{ended: ended, stop: sync.OnceFunc(func() { close(ended) })}
}

// wait returns when the wire is no longer held, or ends.
func (r *rest) wait() {
	r.mu.Lock()
	resting, released := r.resting, r.released
	r.mu.Unlock()
	if released == nil {
		return
	}
	resting <- struct{}{}
	select {
	case <-released:
	case <-r.ended:
	}
}

// begin makes each of the given number of directions pause when it next calls wait.
func (r *rest) begin(directions int) (resting <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting, r.released = make(chan struct{}, directions), make(chan struct{})
	return r.resting
}

// end makes the directions continue. It returns false if the wire was not held.
func (r *rest) end() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released == nil {
		return false
	}
	close(r.released)
	r.released = nil
	return true
}

func (r *rest) held() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.released != nil
}

// Hold stops the lanes between two frames. Frames that they took from their devices have left,
// were dropped, or are held in the table; all others stay in the queues of the devices. A fast
// path must pass up all frames by then. Until [Bump.Release], nothing expires, and reloads wait. If
// [Bump.Run] ends while the wire is held, it drops no held fragments. If ctx is done before all
// lanes pause, the wire continues, and Hold returns the cause.
func (b *Bump) Hold(ctx context.Context) error {
	b.yield() // most of it, so that the lanes pause for a shorter time
	b.reloading.Lock()
	b.upkeep.Lock()
	resting := b.rest.begin(b.lanes())
	if err := b.holdLanes(ctx, resting); err != nil {
		b.Release()
		return err
	}
	b.yield()
	return nil
}

// Release makes a held wire continue as if it had not been held, and ends the recording of
// changes that [AllFlows] began.
func (b *Bump) Release() {
	if b.rest.end() {
		b.upkeep.Unlock()
		b.reloading.Unlock()
	}
	if flows := b.policy.Load().FlowTable(); flows != nil {
		flows.EndSave()
	}
}

// holdLanes returns once all lanes pause.
func (b *Bump) holdLanes(ctx context.Context, resting <-chan struct{}) error {
	for side := range b.sides {
		for _, d := range b.sides[side].directions {
			if err := d.lane.Hold(); err != nil {
				return fmt.Errorf("hold %s: %w", d.lane.Name(), err)
			}
		}
	}
	for range b.lanes() {
		select {
		case <-resting:
		case <-ctx.Done():
			return fmt.Errorf("hold the wire: %w", context.Cause(ctx))
		}
	}
	return nil
}

// lanes returns the number of lanes.
func (b *Bump) lanes() int {
	return len(b.sides[verdict.Inside].directions) + len(b.sides[verdict.Outside].directions)
}

// yield takes over the state of the fast path.
func (b *Bump) yield() {
	if b.fastPath == nil {
		return
	}
	validator, validates := b.fragments.(*validation)
	b.fastPath.Yield(func(p *packet.Parsed, from verdict.Side, begun Beginning) {
		if validates {
			validator.Begin(p, from, begun, b.Now())
		}
	})
}
