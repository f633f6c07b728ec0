package tuntest

import (
	"context"
	"errors"
	"testing"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

func TestLanes(t *testing.T) {
	lanetest.TestLanes(t, func(t *testing.T, test func(t *testing.T, r *lanetest.Rig)) {
		from, to := NewPort("in"), NewPort("out")
		test(t, &lanetest.Rig{
			Lanes:   []tun.Lane{from.Lane(to)},
			Offload: true,
			Send: func(f tun.Frame) error {
				from.InjectFrame(f)
				return nil
			},
			Receive: func() (tun.Frame, error) { return next(t, to) },
			Replies: func() (tun.Frame, error) { return next(t, from) },
		})
	})
}

func next(t *testing.T, p *Port) (tun.Frame, error) {
	ctx, cancel := context.WithTimeout(t.Context(), lanetest.Timeout)
	defer cancel()
	return p.Next(ctx)
}

// TestPort checks that a port records its settings.
func TestPort(t *testing.T) {
	var p tun.Port = NewPort("a")
	memory := p.(*Port)
	if !memory.Carrier() || memory.MTU() != 0 || memory.Closed() {
		t.Errorf("new: carrier %v, mtu %d, closed %v", memory.Carrier(), memory.MTU(), memory.Closed())
	}
	p.SetJoined(true)
	if err := errors.Join(p.SetMTU(1400), p.SetCarrier(false), p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if memory.Carrier() || memory.MTU() != 1400 || !memory.Joined() || !memory.Closed() {
		t.Errorf("carrier %v, mtu %d, joined %v, closed %v", memory.Carrier(), memory.MTU(), memory.Joined(), memory.Closed())
	}
	if missed, err := p.Missed(); missed != 0 || err != nil || p.Fallbacks() != nil || p.Index() != 0 {
		t.Errorf("%d missed, %v", missed, err)
	}
	lanes, err := p.Lanes(NewPort("b"))
	if err != nil || len(lanes) != 1 || lanes[0].Name() != "a to b" {
		t.Errorf("lanes %v, %v", lanes, err)
	}
	other := struct{ tun.Port }{p}
	if _, err := p.Lanes(other); err == nil || err.Error() != `join "a" to "a": that is not in memory` {
		t.Error(err)
	}
}

// TestFull writes and replies to a port until it has no room.
func TestFull(t *testing.T) {
	from, to := NewPort("a"), NewPort("b")
	lane := from.Lane(to)
	refused, err := lane.Write(make([]tun.Frame, depth+2))
	if refused != 2 || err == nil || err.Error() != `write "b": full` {
		t.Errorf("%d refused: %v", refused, err)
	}
	for range depth {
		if err := lane.Reply(tun.Frame{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := lane.Reply(tun.Frame{}); err == nil || err.Error() != `reply by "a": full` {
		t.Error(err)
	}
}
