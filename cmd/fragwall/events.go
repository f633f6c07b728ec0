package main

import (
	"log/slog"
	"sync"
	"time"

	"fragwall/filter"
)

// matchEvents is how many events of rules with log = true there are at most a
// second, over all rules: more than a person reads, less than a disk notices.
const matchEvents = 10

// matchLog tells of the datagrams that rules with log = true decide on. Any
// number of goroutines may use it.
type matchLog struct {
	log *slog.Logger

	mu sync.Mutex
	// mu guards:
	second     int64 // that is being counted
	told       int   // in it
	suppressed int   // since the last event
}

// matched tells of a verdict, unless there were too many already.
func (m *matchLog) matched(d *filter.Datagram, v filter.Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now().Unix(); now != m.second {
		m.second, m.told = now, 0
	}
	if m.told == matchEvents {
		m.suppressed++
		return
	}
	m.told++
	m.log.Info("matched", "rule", v.Rule.Name, "action", v.Action.String(), "from", d.From.String(),
		"datagram", describe(d.Parsed), "bytes", d.Length(), "suppressed", m.suppressed)
	m.suppressed = 0
}
