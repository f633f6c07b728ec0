package report

import (
	"time"

	"fragwall/cmd/fragwall/internal/record"
	"fragwall/wire"
)

// Build is the versions of the running program.
type Build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	GVisor  string `json:"gvisor"`
}

// Policy is the policy in force.
type Policy struct {
	Generation int       `json:"generation"` // 1 at the start, incremented by each successful reload
	Since      time.Time `json:"since"`
	Failures   int       `json:"failed_reloads"`
	Default    string    `json:"default"`
	Stateful   bool      `json:"stateful"`
	// LastGood is set while the policy in force is the copy of an earlier instance, because the
	// file was broken at the start.
	LastGood bool `json:"last_good"`
	// Kept is the time of the copy that a start with a broken file would use, or nil if there
	// is no copy.
	Kept *time.Time `json:"kept,omitempty"`
	// Mistake is the first mistake in the file if the last attempt to load it failed.
	Mistake string `json:"mistake,omitempty"`
}

// Report is the state of an instance at one time. Its JSON is the answer of /api/status.
type Report struct {
	Build
	Time          time.Time       `json:"time"`
	Started       time.Time       `json:"started"`
	UptimeSeconds float64         `json:"uptime_seconds"`
	Ready         bool            `json:"ready"`
	Takeover      *Takeover       `json:"takeover,omitempty"` // nil if no process took over since the start
	Sides         map[string]Side `json:"sides"`              // "inside" and "outside", by ingress side
	Fragments     Fragments       `json:"fragments"`
	Flows         Flows           `json:"flows"`
	FastPath      FastPath        `json:"fast_path"`
	Policy        Policy          `json:"policy"`
	Rules         []Rule          `json:"rules"` // in the order of the policy
	EventsLogged  uint64          `json:"events_logged"`
	// EventsSuppressed is the number of events above the rate limit.
	EventsSuppressed uint64         `json:"events_suppressed"`
	Events           []record.Event `json:"events"` // the latest events, newest first
}

// Takeover is the number of take-overs since the start of the first process, and the last
// take-over.
type Takeover struct {
	Count        int       `json:"count"`
	Time         time.Time `json:"time"`
	PauseSeconds float64   `json:"pause_seconds"` // time without a process that reads frames
}

// Side is the state of a side's device, and the counters of the frames that arrived on that
// side.
type Side struct {
	Device         string            `json:"device"`
	NIC            string            `json:"nic,omitempty"`        // "" if the side has no NIC
	Joined         *bool             `json:"nic_joined,omitempty"` // nil if the side has no NIC
	Link           string            `json:"link"`                 // "up" or "down": of the NIC if there is one, otherwise of the TAP
	LinkSpeed      uint64            `json:"link_speed_bytes_per_second,omitempty"`
	MTU            int               `json:"mtu_bytes"`
	Missed         *uint64           `json:"missed_frames,omitempty"` // dropped by the kernel before fragwall could receive them
	ReceivedFrames uint64            `json:"received_frames"`         // sum of forwarded, dropped and waiting frames
	ReceivedBytes  uint64            `json:"received_bytes"`
	Forwarded      uint64            `json:"forwarded_frames"`
	ForwardedBytes uint64            `json:"forwarded_bytes"`
	Sent           uint64            `json:"sent_frames"` // frames sent for the forwarded ones
	SentBytes      uint64            `json:"sent_bytes"`
	Waiting        uint64            `json:"waiting_frames"`
	DroppedFrames  uint64            `json:"dropped_frames"`
	Dropped        map[string]uint64 `json:"dropped"` // by reason; reasons without frames are omitted
	Reassembled    uint64            `json:"reassembled_datagrams"`
	Answered       uint64            `json:"answered_datagrams"` // rejected datagrams whose sender got an answer
	LatencyP50     float64           `json:"latency_p50_seconds"`
	LatencyP99     float64           `json:"latency_p99_seconds"`

	Latency wire.LatencySnapshot `json:"-"` // source of the quantiles
}

// Fragments is the number and memory of incomplete datagrams, with their limits.
type Fragments struct {
	Mode           string `json:"mode"`
	Datagrams      int    `json:"waiting_datagrams"`
	DatagramsLimit int    `json:"waiting_datagrams_limit"`
	Bytes          int64  `json:"waiting_bytes"`
	BytesLimit     int64  `json:"waiting_bytes_limit"`
}

// Flows is the number of flows of a stateful policy.
type Flows struct {
	Known int `json:"known"`
	Limit int `json:"limit"`
}

// Rule is a rule and its counters.
type Rule struct {
	Name      string `json:"name"`
	Line      int    `json:"line"`
	Action    string `json:"action"`
	Datagrams uint64 `json:"datagrams"`
	Bytes     uint64 `json:"bytes"`
	// OverLimit is the number of datagrams that matched the rule beyond its limit, and on which
	// later rules decided. It is nil if the rule has no limit.
	OverLimit *uint64 `json:"over_limit_datagrams,omitempty"`
}
