package report

import (
	"context"
	"fmt"
	"time"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/wire"
)

// Source is the state from which the report of a running box is read.
type Source struct {
	Build   Build
	Devices [verdict.Sides]string // by side
	Mode    packet.Mode
	Limits  stack.Options
	Bump    *wire.Bump
	Events  *events.Recorder
	Started time.Time
	Ready   func() bool // whether frames flow
	// Takeover is the last take-over; nil if there was none since the start.
	Takeover *Takeover
	// Links returns the state of both sides' devices.
	Links func() [verdict.Sides]Link
	// Missed returns the number of frames that the kernel dropped before the box read them, by
	// side. It omits a side whose device is gone.
	Missed func() map[verdict.Side]uint64
	// FastPath returns the state of the fast path.
	FastPath func() FastPath
	// Policy returns the state of the policy in force.
	Policy func() Policy
}

// Link is the state of a side's device.
type Link struct {
	NIC    string // current name; "" if there is none
	Joined bool   // whether the NIC is joined to its TAP
	Up     bool   // whether the device can pass frames
	MTU    int    // in bytes
	Speed  uint64 // in bit/s; 0 if not known
}

// WithoutLink returns the names of the sides whose link is down.
func (s *Source) WithoutLink() (sides []string) {
	for side, link := range s.Links() {
		if !link.Up {
			sides = append(sides, verdict.Side(side).String())
		}
	}
	return sides
}

// Report returns the report of the box.
func (s *Source) Report(now time.Time) *Report {
	r := Of(s.Bump)
	r.Build, r.Time, r.Started, r.UptimeSeconds, r.Ready = s.Build, now, s.Started, now.Sub(s.Started).Seconds(), s.Ready()
	r.Takeover, r.Policy, r.FastPath = s.Takeover, s.Policy(), s.FastPath()
	r.Fragments.Mode, r.Fragments.DatagramsLimit, r.Fragments.BytesLimit = s.Mode.String(), s.Limits.MaxDatagrams, s.Limits.Memory
	links, missed := s.Links(), s.Missed()
	for side, link := range links {
		name := verdict.Side(side).String()
		of := r.Sides[name]
		of.Device, of.NIC, of.Link, of.LinkSpeed, of.MTU = s.Devices[side], link.NIC, linkState(link.Up), link.Speed/8, link.MTU
		if link.NIC != "" {
			of.Joined = &link.Joined
		}
		if n, known := missed[verdict.Side(side)]; known {
			of.Missed = &n
		}
		r.Sides[name] = of
	}
	r.Events = s.Events.Last()
	r.EventsLogged, r.EventsSuppressed = s.Events.Counts()
	return r
}

// Of returns the report of a wire alone: the frames of both sides, the incomplete datagrams,
// the flows and the rules.
func Of(b *wire.Bump) *Report {
	r := &Report{Sides: make(map[string]Side, verdict.Sides)}
	for side := range verdict.Side(verdict.Sides) {
		r.Sides[side.String()] = sideOf(b, side)
	}
	usage := b.Usage()
	r.Fragments.Datagrams, r.Fragments.Bytes = usage.Datagrams, usage.Bytes
	table := b.Policy()
	r.Flows.Known = table.Flows()
	if table.Policy().Stateful {
		r.Flows.Limit = flow.Max
	}
	rules := table.Policy().Rules
	r.Rules = make([]Rule, len(rules))
	for i := range rules {
		n := table.Count(i)
		r.Rules[i] = Rule{Name: rules[i].Name, Line: rules[i].Line, Action: rules[i].Action.String(), Datagrams: n.Datagrams, Bytes: n.Bytes}
		if rules[i].Limit != (filter.Rate{}) {
			r.Rules[i].OverLimit = &n.OverLimit
		}
	}
	return r
}

// States of a link.
const (
	LinkUp   = "up"
	LinkDown = "down"
)

func linkState(up bool) string {
	if up {
		return LinkUp
	}
	return LinkDown
}

// sideOf returns the counters of the frames that arrived on a side, from one snapshot.
func sideOf(b *wire.Bump, side verdict.Side) Side {
	c := b.Counters(side)
	latency := b.Latency(side).Snapshot()
	r := Side{
		ReceivedFrames: c.Received(), ReceivedBytes: c.ReceivedBytes,
		Forwarded: c.Forwarded, ForwardedBytes: c.ForwardedBytes, Sent: c.Sent, SentBytes: c.SentBytes, Waiting: c.Waiting,
		Dropped: make(map[string]uint64), Reassembled: c.Reassembled, Answered: c.Answered,
		LatencyP50: latency.Quantile(0.5).Seconds(), LatencyP99: latency.Quantile(0.99).Seconds(), Latency: latency,
	}
	for reason, n := range c.Dropped {
		if n > 0 {
			r.Dropped[verdict.Reason(reason).String()] = n
			r.DroppedFrames += n
		}
	}
	return r
}

// Alive takes each lock of the datapath once. It fails if a lock is not released before ctx is
// done.
func (s *Source) Alive(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		Of(s.Bump)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the datapath does not respond: %w", ctx.Err())
	}
}
