package status

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/fastpath"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// All metrics. The values of labels come from closed sets: sides, reasons, the two results of
// an event or a reload, and the rules of the policy in force.
var (
	buildInfo   = describe("build_info", "Versions of fragwall, Go and gVisor. Always 1.", "version", "go", "gvisor")
	started     = describe("start_time_seconds", "Start time of the instance, in seconds since the Unix epoch. A take-over does not change it.")
	ready       = describe("ready", "1 while frames flow, otherwise 0.")
	goroutines  = describe("goroutines", "Number of goroutines.")
	missed      = describe("missed_frames_total", "Frames that the kernel dropped because the queue of the side's TAP was full; not part of received.", "side")
	received    = describe("received_frames_total", "Frames received from the side: the sum of forwarded, dropped and waiting frames.", "side")
	receivedB   = describe("received_bytes_total", "Bytes of frames received from the side.", "side")
	forwarded   = describe("forwarded_frames_total", "Frames received from the side and forwarded.", "side")
	forwardedB  = describe("forwarded_bytes_total", "Bytes of frames received from the side and accepted, including frames that the egress device refused.", "side")
	sent        = describe("sent_frames_total", "Frames written to the egress device for frames received from the side.", "side")
	sentB       = describe("sent_bytes_total", "Bytes of frames written to the egress device, including frames that it refused.", "side")
	dropped     = describe("dropped_frames_total", "Frames received from the side and dropped, by reason.", "side", "reason")
	waiting     = describe("waiting_frames", "Fragments received from the side and held until their datagram is complete.", "side")
	reassembled = describe("reassembled_datagrams_total", "Datagrams reassembled, whatever the verdict.", "side")
	answered    = describe("answered_datagrams_total", "Rejected datagrams whose sender was notified.", "side")
	linkUp      = describe("link_up", "1 if the side's NIC, or its TAP if it has no NIC, has a link, otherwise 0.", "side")
	linkSpeed   = describe("link_speed_bytes_per_second", "Link speed of the side's NIC; no series if the driver does not report it.", "side")
	mtu         = describe("mtu_bytes", "Longest packet that leaves by the side.", "side")
	nicInfo     = describe("nic_info", "Current name of the side's NIC. Always 1.", "side", "nic")
	joined      = describe("nic_joined", "1 if the side's NIC is joined to its TAP, otherwise 0; no series for a side without a NIC.", "side")
	latency     = describe("latency_seconds", "Time from reading a batch of frames to writing it; one batch in 64 is measured.", "side")

	waitingD      = describe("waiting_datagrams", "Incomplete datagrams, including discarded ones.")
	waitingDLimit = describe("waiting_datagrams_limit", "Limit on incomplete datagrams.")
	waitingB      = describe("waiting_bytes", "Memory used for incomplete datagrams.")
	waitingBLimit = describe("waiting_bytes_limit", "Limit on memory for incomplete datagrams.")

	ruleDatagrams = describe("rule_datagrams_total", "Datagrams that the rule decided on, including later datagrams of its flows.", "rule")
	ruleBytes     = describe("rule_bytes_total", "Bytes of IP packets that the rule decided on.", "rule")
	ruleOverLimit = describe("rule_over_limit_datagrams_total", "Datagrams that matched the rule beyond its limit, so that a later rule decided; no series for a rule without a limit.", "rule")
	flows         = describe("flows", "Flows in the flow table.")
	flowsLimit    = describe("flows_limit", "Limit on flows; 0 if the policy is stateless.")

	fastInfo      = describe("fastpath_info", "State of the fast path, on or off, and the reason if it is off. Always 1.", "state", "reason")
	fastFrames    = describe("fastpath_frames_total", "Frames received from the side that the fast path forwarded or dropped.", "side")
	fastBytes     = describe("fastpath_bytes_total", "Bytes of frames received from the side that the fast path forwarded or dropped.", "side")
	fastDropped   = describe("fastpath_dropped_frames_total", "Frames received from the side that the fast path dropped.", "side")
	fastEntries   = describe("fastpath_entries", "Flows with an entry in the fast path.")
	fastLimit     = describe("fastpath_entries_limit", "Limit on entries in the fast path; 0 if it is off.")
	fastPassedUp  = describe("fastpath_passed_up_frames_total", "Frames received from the side that the fast path passed up to the process, by reason.", "side", "reason")
	fastRing      = describe("fastpath_ring_frames_total", "Fragments passed up to the process through a ring.", "side")
	fastMapErrors = describe("fastpath_map_errors_total", "Fast path entries that the kernel refused to add or remove.")

	generation  = describe("policy_generation", "Generation of the policy in force: 1 at the start, increased by each reload.")
	policySince = describe("policy_time_seconds", "Time when the policy in force was loaded, in seconds since the Unix epoch.")
	lastGood    = describe("policy_last_good", "1 if the last good configuration is in force because the configuration file was broken at the start, otherwise 0.")
	reloads     = describe("reloads_total", "Reloads, by result.", "state")
	lastReload  = describe("config_last_reload_successful", "1 if the last load of the configuration file succeeded, otherwise 0.")
	takeovers   = describe("takeovers_total", "Processes that took over from the one before, since the first one started.")
	pause       = describe("takeover_pause_seconds", "Time for which no process read frames when the last one took over; absent if none did.")
	eventCount  = describe("events_total", "Events, logged or suppressed by the rate limit.", "state")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("fragwall_"+name, help, labels, nil)
}

// collector is a Prometheus collector of a report's metrics.
type collector struct{ source *report.Source }

var _ prometheus.Collector = collector{}

// Describe implements [prometheus.Collector]. It describes no metrics, because the series
// change with the rules at a reload.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector]. It collects the metrics of the current report.
func (c collector) Collect(to chan<- prometheus.Metric) {
	m, r := sink(to), c.source.Report(time.Now())
	m.gauge(buildInfo, 1, r.Version, r.Go, r.GVisor)
	m.gauge(started, unix(r.Started))
	m.gauge(ready, truth(r.Ready))
	m.gauge(goroutines, float64(runtime.NumGoroutine()))
	for name, side := range r.Sides {
		m.side(name, &side)
		m.link(name, &side)
	}
	m.gauge(waitingD, float64(r.Fragments.Datagrams))
	m.gauge(waitingDLimit, float64(r.Fragments.DatagramsLimit))
	m.gauge(waitingB, float64(r.Fragments.Bytes))
	m.gauge(waitingBLimit, float64(r.Fragments.BytesLimit))

	m.gauge(generation, float64(r.Policy.Generation))
	m.gauge(policySince, unix(r.Policy.Since))
	m.gauge(lastGood, truth(r.Policy.LastGood))
	m.counter(reloads, uint64(r.Policy.Generation-1), "success")
	m.counter(reloads, uint64(r.Policy.Failures), "failure")
	m.gauge(lastReload, truth(r.Policy.Mistake == ""))
	m.takeover(r.Takeover)
	m.gauge(flows, float64(r.Flows.Known))
	m.gauge(flowsLimit, float64(r.Flows.Limit))
	m.fastPath(&r.FastPath)
	for _, rule := range r.Rules {
		m.counter(ruleDatagrams, rule.Datagrams, rule.Name)
		m.counter(ruleBytes, rule.Bytes, rule.Name)
		if rule.OverLimit != nil {
			m.counter(ruleOverLimit, *rule.OverLimit, rule.Name)
		}
	}
	m.counter(eventCount, r.EventsLogged, "logged")
	m.counter(eventCount, r.EventsSuppressed, "suppressed")
}

// sink is the channel that metrics are sent to.
type sink chan<- prometheus.Metric

func (m sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	m <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

// takeover sends the metrics of take-overs. t is nil if there was none.
func (m sink) takeover(t *report.Takeover) {
	if t == nil {
		t = &report.Takeover{}
	} else {
		m.gauge(pause, t.PauseSeconds)
	}
	m.counter(takeovers, uint64(t.Count))
}

// link sends the metrics of a side's device.
func (m sink) link(name string, s *report.Side) {
	m.gauge(linkUp, truth(s.Link == report.LinkUp), name)
	m.gauge(mtu, float64(s.MTU), name)
	if s.LinkSpeed > 0 {
		m.gauge(linkSpeed, float64(s.LinkSpeed), name)
	}
	if s.NIC != "" {
		m.gauge(nicInfo, 1, name, s.NIC)
		m.gauge(joined, truth(*s.Joined), name)
	}
}

// side sends the metrics of the frames that arrived on a side.
func (m sink) side(name string, s *report.Side) {
	if s.Missed != nil {
		m.counter(missed, *s.Missed, name)
	}
	m.counter(received, s.ReceivedFrames, name)
	m.counter(receivedB, s.ReceivedBytes, name)
	m.counter(forwarded, s.Forwarded, name)
	m.counter(forwardedB, s.ForwardedBytes, name)
	m.counter(sent, s.Sent, name)
	m.counter(sentB, s.SentBytes, name)
	m.gauge(waiting, float64(s.Waiting), name)
	m.counter(reassembled, s.Reassembled, name)
	m.counter(answered, s.Answered, name)
	for reason := verdict.Passed + 1; int(reason) < verdict.Reasons; reason++ {
		m.counter(dropped, s.Dropped[reason.String()], name, reason.String())
	}
	buckets, count := make(map[float64]uint64, wire.LatencyBuckets), uint64(0)
	for i, n := range s.Latency.Buckets[:wire.LatencyBuckets-1] {
		count += n
		buckets[wire.LatencyBound(i).Seconds()] = count
	}
	m <- prometheus.MustNewConstHistogram(latency, s.Latency.Count(), s.Latency.Sum.Seconds(), buckets, name)
}

// fastPath sends the metrics of the fast path.
func (m sink) fastPath(f *report.FastPath) {
	m.gauge(fastInfo, 1, f.State, string(f.Reason))
	for name, side := range f.Sides {
		m.counter(fastFrames, side.Forwarded+side.Dropped, name)
		m.counter(fastBytes, side.ForwardedBytes+side.DroppedBytes, name)
		m.counter(fastDropped, side.Dropped, name)
		for reason := range fastpath.Reason(fastpath.Reasons) {
			m.counter(fastPassedUp, side.PassedUp[reason.String()], name, reason.String())
		}
		m.counter(fastRing, side.Ring, name)
	}
	m.gauge(fastEntries, float64(f.Entries))
	m.gauge(fastLimit, float64(f.EntriesLimit))
	m.counter(fastMapErrors, f.MapErrors)
}

// truth returns 1 for true and 0 for false.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixNano()) / float64(time.Second) }
