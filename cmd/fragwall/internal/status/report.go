package status

import (
	"time"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
	"fragwall/wire"
)

// Build says what is running.
type Build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	GVisor  string `json:"gvisor"`
}

// Source is what a box has to tell of.
type Source struct {
	Build   Build
	Devices [verdict.Sides]string // by side
	Mode    packet.Mode
	Limits  stack.Options
	Bump    *wire.Bump
	Events  *events.Recorder
	Started time.Time
	Ready   func() bool // frames flow
	// Links says how the devices of both sides are.
	Links func() [verdict.Sides]Link
	// Missed is how many frames of each side the kernel dropped before the box
	// read them; of a side whose device is gone it says nothing.
	Missed func() map[verdict.Side]uint64
	// Policy says how the policy in force got there.
	Policy func() Policy
}

// Link is how a side's device is.
type Link struct {
	NIC    string // as it is called now; "" where there is none
	Joined bool   // the NIC is in the wire
	Up     bool   // frames can pass at the device
	MTU    int    // bytes
	Speed  uint64 // bit/s; 0: it is not known
}

// withoutLink returns the names of the sides that have no link.
func (s *Source) withoutLink() (sides []string) {
	for side, link := range s.Links() {
		if !link.Up {
			sides = append(sides, verdict.Side(side).String())
		}
	}
	return sides
}

// Policy is the policy in force.
type Policy struct {
	Generation int       `json:"generation"` // 1 at the start, one more with each reload
	Since      time.Time `json:"since"`
	Failures   int       `json:"failed_reloads"`
	Default    string    `json:"default"`
	Stateful   bool      `json:"stateful"`
	// LastGood is set where an earlier instance kept what is in force, since the
	// file was broken at the start.
	LastGood bool `json:"last_good"`
	// Kept is when the configuration was kept that a start with a broken file
	// would find; nil where there is none.
	Kept *time.Time `json:"kept,omitempty"`
	// Mistake is the first mistake of the file where it could not be loaded the
	// last time.
	Mistake string `json:"mistake,omitempty"`
}

// Report is the answer of /api/status.
type Report struct {
	Build
	Time          time.Time       `json:"time"`
	Started       time.Time       `json:"started"`
	UptimeSeconds float64         `json:"uptime_seconds"`
	Ready         bool            `json:"ready"`
	Sides         map[string]Side `json:"sides"` // "inside" and "outside", by where frames came in
	Fragments     Fragments       `json:"fragments"`
	Flows         Flows           `json:"flows"`
	Policy        Policy          `json:"policy"`
	Rules         []Rule          `json:"rules"` // in their order
	EventsTold    uint64          `json:"events_told"`
	// EventsSuppressed are those that were more than the limit.
	EventsSuppressed uint64         `json:"events_suppressed"`
	Events           []events.Event `json:"events"` // the last, newest first
}

// Side is what became of the frames that came in by a side.
type Side struct {
	Device         string            `json:"device"`
	NIC            string            `json:"nic,omitempty"`        // where there is one
	Joined         *bool             `json:"nic_joined,omitempty"` // where there is a NIC
	Link           string            `json:"link"`                 // "up" or "down": of the NIC, or else the TAP
	LinkSpeed      uint64            `json:"link_speed_bytes_per_second,omitempty"`
	MTU            int               `json:"mtu_bytes"`
	Missed         *uint64           `json:"missed_frames,omitempty"` // before they could be received
	ReceivedFrames uint64            `json:"received_frames"`         // forwarded, dropped and waiting
	ReceivedBytes  uint64            `json:"received_bytes"`
	Forwarded      uint64            `json:"forwarded_frames"`
	ForwardedBytes uint64            `json:"forwarded_bytes"`
	Sent           uint64            `json:"sent_frames"` // for the forwarded ones
	SentBytes      uint64            `json:"sent_bytes"`
	Waiting        uint64            `json:"waiting_frames"`
	DroppedFrames  uint64            `json:"dropped_frames"`
	Dropped        map[string]uint64 `json:"dropped"` // by reason; those with any
	Reassembled    uint64            `json:"reassembled_datagrams"`
	Answered       uint64            `json:"answered_datagrams"` // rejected, and the sender told
	LatencyP50     float64           `json:"latency_p50_seconds"`
	LatencyP99     float64           `json:"latency_p99_seconds"`
}

// Fragments is what waits, against its limits.
type Fragments struct {
	Mode           string `json:"mode"`
	Datagrams      int    `json:"waiting_datagrams"`
	DatagramsLimit int    `json:"waiting_datagrams_limit"`
	Bytes          int64  `json:"waiting_bytes"`
	BytesLimit     int64  `json:"waiting_bytes_limit"`
}

// Flows is how many flows a stateful policy knows.
type Flows struct {
	Known int `json:"known"`
	Limit int `json:"limit"`
}

// Rule is what a rule decided on.
type Rule struct {
	Name      string `json:"name"`
	Line      int    `json:"line"`
	Action    string `json:"action"`
	Datagrams uint64 `json:"datagrams"`
	Bytes     uint64 `json:"bytes"`
	// OverLimit are datagrams that matched beyond the rule's limit, on which
	// other rules decided; nil where the rule has no limit.
	OverLimit *uint64 `json:"over_limit_datagrams,omitempty"`
}

// Report reads everything.
func (s *Source) Report(now time.Time) *Report {
	r := &Report{
		Build: s.Build, Time: now, Started: s.Started, UptimeSeconds: now.Sub(s.Started).Seconds(), Ready: s.Ready(),
		Sides: make(map[string]Side, verdict.Sides), Policy: s.Policy(), Events: s.Events.Last(),
	}
	for side := range verdict.Side(verdict.Sides) {
		r.Sides[side.String()] = s.side(side)
	}
	for side, link := range s.Links() {
		name := verdict.Side(side).String()
		of := r.Sides[name]
		of.NIC, of.Link, of.LinkSpeed, of.MTU = link.NIC, linkState(link.Up), link.Speed/8, link.MTU
		if link.NIC != "" {
			of.Joined = &link.Joined
		}
		r.Sides[name] = of
	}
	for side, missed := range s.Missed() {
		of := r.Sides[side.String()]
		of.Missed = &missed
		r.Sides[side.String()] = of
	}
	usage := s.Bump.Usage()
	r.Fragments = Fragments{
		Mode: s.Mode.String(), Datagrams: usage.Datagrams, DatagramsLimit: s.Limits.MaxDatagrams,
		Bytes: usage.Bytes, BytesLimit: s.Limits.Memory,
	}
	table := s.Bump.Policy()
	r.Flows.Known = table.Flows()
	if r.Policy.Stateful {
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
	r.EventsTold, r.EventsSuppressed = s.Events.Counts()
	return r
}

// linkState is what a link's state is called.
func linkState(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func (s *Source) side(side verdict.Side) Side {
	c := s.Bump.Counters(side)
	latency := s.Bump.Latency(side).Snapshot()
	r := Side{
		Device: s.Devices[side], ReceivedFrames: c.Received(), ReceivedBytes: c.ReceivedBytes,
		Forwarded: c.Forwarded, ForwardedBytes: c.ForwardedBytes, Sent: c.Sent, SentBytes: c.SentBytes, Waiting: c.Waiting,
		Dropped: make(map[string]uint64), Reassembled: c.Reassembled, Answered: c.Answered,
		LatencyP50: latency.Quantile(0.5).Seconds(), LatencyP99: latency.Quantile(0.99).Seconds(),
	}
	for reason, n := range c.Dropped {
		if n > 0 {
			r.Dropped[verdict.Reason(reason).String()] = n
			r.DroppedFrames += n
		}
	}
	return r
}
