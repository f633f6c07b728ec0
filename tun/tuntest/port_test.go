package tuntest

import (
	"context"
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
