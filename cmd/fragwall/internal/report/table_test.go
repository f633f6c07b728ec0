package report

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/golden"
	"fragwall/cmd/fragwall/internal/record"
	"fragwall/fastpath"
	"fragwall/packet/verdict"
)

// exampleReport returns a report, and one of two seconds later.
func exampleReport() (before, now *Report) {
	gone, limited := false, uint64(12)
	of := func(seconds uint64) *Report {
		missed := 1500 * seconds
		return &Report{
			Build: Build{Version: "1.2.3"}, Time: time.Unix(int64(1000+seconds), 0), UptimeSeconds: 3600 + float64(seconds), Ready: true,
			Sides: map[string]Side{
				"inside": {Link: "up", MTU: 1500, Missed: &missed, ReceivedFrames: 1234567 + 100000*seconds, ReceivedBytes: 1 << 30, Forwarded: 1234560 + 100000*seconds, ForwardedBytes: 1 << 30,
					DroppedFrames: 7, Dropped: map[string]uint64{"policy_default": 5, "fragment_overlap": 2}, LatencyP50: 64e-6, LatencyP99: 0.002048},
				"outside": {NIC: "eth1", Joined: &gone, Link: "down", MTU: 9000, LinkSpeed: 25e9 / 8, ReceivedFrames: 3 + 2*seconds, Forwarded: 2, Waiting: 1, DroppedFrames: 2 * seconds, Dropped: map[string]uint64{"policy_default": 2 * seconds}},
			},
			Fragments: Fragments{Mode: "reassemble", Datagrams: 1, DatagramsLimit: 65536, Bytes: 2200, BytesLimit: 64 << 20},
			Flows:     Flows{Known: 12, Limit: 1 << 20},
			FastPath: FastPath{State: FastPathOn, Entries: 1234, EntriesLimit: 65536, MapErrors: 1, Sides: map[string]FastPathSide{
				"inside":  {Forwarded: 1134567 + 90000*seconds, ForwardedBytes: 1 << 29, Dropped: 5, DroppedBytes: 300, PassedUp: map[string]uint64{"unknown_flow": 2000, "flags": 12}},
				"outside": {Forwarded: 2, PassedUp: map[string]uint64{"unknown_flow": 1000, "no \x1b[2J": 12}},
			}},
			Takeover:     &Takeover{Count: 2, Time: time.Unix(0, 0), PauseSeconds: 0.00264},
			Policy:       Policy{Generation: 2, Since: time.Unix(0, 0), Default: "drop", Stateful: true, Failures: 1},
			EventsLogged: 2, EventsSuppressed: 1234,
			Events: exampleEvents(),
			Rules: []Rule{
				{Name: "dns", Action: "accept", Datagrams: 10 * seconds, Bytes: 12345678, OverLimit: &limited},
				{Name: "no \x1b[2J", Action: "drop"},
			},
		}
	}
	return of(0), of(2)
}

// exampleEvents returns events of each kind, newest first.
func exampleEvents() []record.Event {
	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	port, zero := record.Some[uint16](53), record.Some[uint8](0)
	return []record.Event{
		{Kind: "link", Decision: record.Decision{Time: time.Unix(1001, 0), From: "outside"}, Device: "eth1", Link: "down"},
		{Kind: "drop", Decision: record.Decision{Time: time.Unix(1001, 0), From: "outside", Verdict: "drop", Reason: "exceeds_mtu",
			Protocol: "udp", Src: src, Dst: dst, Bytes: 3042, Length: 3028, MTU: 1500}},
		{Kind: "drop", Decision: record.Decision{Time: time.Unix(1000, 0), From: "inside", Verdict: "drop", Reason: "fragment_timeout",
			VLANs: []uint16{10}, Protocol: "udp", Src: netip.MustParseAddr("2001:db8::1"), SrcPort: port, Dst: netip.MustParseAddr("2001:db8::2"), DstPort: port,
			Fragments: 3, Identification: record.Some[uint32](0xabc), Missing: []string{"1448-2895", "4344-"}, Bytes: 4150}},
		{Kind: "match", Decision: record.Decision{Time: time.Unix(999, 0), From: "outside", Verdict: "accept", Rule: "no \x1b[2J",
			Protocol: "icmp", Src: src, Dst: dst, ICMPType: zero, ICMPCode: zero, Bytes: 98}},
		{Kind: "drop", Decision: record.Decision{Time: time.Unix(998, 0), From: "inside", Verdict: "drop", Reason: "ethernet_\x1b[2J", Bytes: 2}},
		{Kind: "drop", Decision: record.Decision{Time: time.Unix(997, 0), From: "inside", Verdict: "drop", Reason: "policy_default", OverLimit: "dns",
			Protocol: "icmpv6", Src: netip.MustParseAddr("fe80::1"), Dst: netip.MustParseAddr("ff02::16"), ICMPType: zero, ICMPCode: zero, Bytes: 90}, Background: "mld"},
	}
}

func TestTables(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	before, now := exampleReport()
	for name, before := range map[string]*Report{"status-once.txt": nil, "status-rates.txt": before} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			now.WriteTables(&text, before)
			golden.Compare(t, name, text.String())
		})
	}
}

// TestFastPathOff checks that the table shows the reason, and no rows for the fast path, when
// it is off.
func TestFastPathOff(t *testing.T) {
	_, now := exampleReport()
	now.FastPath = OfFastPath(&fastpath.Stats{}, [verdict.Sides]uint64{}).TurnedOff(OffRights, errors.New("load \x1b[2J: operation not permitted"))
	var text strings.Builder
	now.WriteTables(&text, nil)
	if !strings.Contains(text.String(), "\nfast path: off (rights): \"load \\x1b[2J: operation not permitted\"\n") || strings.Contains(text.String(), "fast path frames") {
		t.Error(text.String())
	}
}
