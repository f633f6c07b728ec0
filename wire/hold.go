package wire

import (
	"context"
	"fmt"
	"sync"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// rest has the directions rest while the wire is held.
type rest struct {
	ended <-chan struct{} // at the end of the wire
	stop  func()

	mu sync.Mutex
	// mu guards:
	resting  chan struct{} // told once by each direction that rests
	released chan struct{} // closed when they are to go on; nil while the wire is not held
}

func newRest() rest {
	ended := make(chan struct{})
	return rest{ended: ended, stop: sync.OnceFunc(func() { close(ended) })}
}

// wait returns when the wire is not held any more, or ends.
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

// begin has each of so many directions rest that waits from now on.
func (r *rest) begin(directions int) (resting <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting, r.released = make(chan struct{}, directions), make(chan struct{})
	return r.resting
}

// end has them go on. It reports false where the wire was not held.
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

// Hold stops the lanes between two frames: what they took from their devices has left,
// was dropped, or waits on the table; all else stays in the devices' queues. A fast path
// has to be detached before. Until [Bump.Release] nothing expires, and a reload waits.
// A wire that is held when [Bump.Run] ends drops nothing of what waits. Where ctx is
// done before all lanes rest, the wire goes on, and Hold returns the cause.
func (b *Bump) Hold(ctx context.Context) error {
	b.yield() // most of it, so that the lanes rest for a shorter time
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

// Release has a wire that is held go on, as if it had not been, and ends what
// [AllFlows] began.
func (b *Bump) Release() {
	if b.rest.end() {
		b.upkeep.Unlock()
		b.reloading.Unlock()
	}
	if flows := b.policy.Load().FlowTable(); flows != nil {
		flows.EndSave()
	}
}

// holdLanes returns once all lanes rest.
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

// lanes returns how many there are.
func (b *Bump) lanes() int {
	return len(b.sides[verdict.Inside].directions) + len(b.sides[verdict.Outside].directions)
}

// yield takes back what a fast path knows.
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
