package report

import (
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/wire"
)

// Build says what is running.
type Build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	GVisor  string `json:"gvisor"`
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

// Report is how an instance is at a moment. Its JSON is the answer of /api/status.
type Report struct {
	Build
	Time          time.Time       `json:"time"`
	Started       time.Time       `json:"started"`
	UptimeSeconds float64         `json:"uptime_seconds"`
	Ready         bool            `json:"ready"`
	Sides         map[string]Side `json:"sides"` // "inside" and "outside", by where frames came in
	Fragments     Fragments       `json:"fragments"`
	Flows         Flows           `json:"flows"`
	FastPath      FastPath        `json:"fast_path"`
	Policy        Policy          `json:"policy"`
	Rules         []Rule          `json:"rules"` // in their order
	EventsLogged  uint64          `json:"events_logged"`
	// EventsSuppressed are those that were more than the limit.
	EventsSuppressed uint64         `json:"events_suppressed"`
	Events           []record.Event `json:"events"` // the last, newest first
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

	Latency wire.LatencySnapshot `json:"-"` // what the quantiles are of
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
