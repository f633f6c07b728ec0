package report

import (
	"strings"
	"testing"
	"time"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/cmd/fragwall/internal/golden"
)

// exampleReport is a report, and one of two seconds later.
func exampleReport() (before, now *Report) {
	port, gone, id, limited := uint16(53), false, uint32(0xabc), uint64(12)
	of := func(seconds uint64) *Report {
		missed := 1500 * seconds
		return &Report{
			Build: Build{Version: "1.2.3"}, Time: time.Unix(int64(1000+seconds), 0), UptimeSeconds: 3600 + float64(seconds), Ready: true,
			Sides: map[string]Side{
				"inside": {Link: "up", MTU: 1500, Missed: &missed, ReceivedFrames: 1234567 + 100000*seconds, ReceivedBytes: 1 << 30, Forwarded: 1234560 + 100000*seconds, ForwardedBytes: 1 << 30,
					DroppedFrames: 7, Dropped: map[string]uint64{"policy_default": 5, "fragment_overlap": 2}, LatencyP50: 64e-6, LatencyP99: 0.002048},
				"outside": {NIC: "eth1", Joined: &gone, Link: "down", MTU: 9000, LinkSpeed: 25e9 / 8, ReceivedFrames: 3 + 2*seconds, Forwarded: 2, Waiting: 1, DroppedFrames: 2 * seconds, Dropped: map[string]uint64{"policy_default": 2 * seconds}},
			},
			Fragments:    Fragments{Mode: "reassemble", Datagrams: 1, DatagramsLimit: 65536, Bytes: 2200, BytesLimit: 64 << 20},
			Flows:        Flows{Known: 12, Limit: 1 << 20},
			Policy:       Policy{Generation: 2, Since: time.Unix(0, 0), Default: "drop", Stateful: true, Failures: 1},
			EventsLogged: 2, EventsSuppressed: 1234,
			Events: []events.Event{
				{Time: time.Unix(1001, 0), Kind: "link", From: "outside", Device: "eth1", Link: "down"},
				{Time: time.Unix(1001, 0), Kind: "drop", From: "outside", Protocol: "udp", Src: "192.0.2.1", Dst: "192.0.2.2",
					Bytes: 3042, Length: 3028, MTU: 1500, Action: "drop", Reason: "exceeds_mtu"},
				{Time: time.Unix(1000, 0), Kind: "drop", From: "inside", VLANs: []uint16{10}, Protocol: "udp", Src: "2001:db8::1", SrcPort: &port,
					Dst: "2001:db8::2", DstPort: &port, Fragments: 3, Identification: &id, Missing: []string{"1448-2895", "4344-"}, Bytes: 4150, Action: "drop", Reason: "fragment_timeout"},
				{Time: time.Unix(999, 0), Kind: "match", From: "outside", Protocol: "icmp", Src: "192.0.2.1", Dst: "192.0.2.2",
					ICMPType: new(uint8), ICMPCode: new(uint8), Bytes: 98, Action: "accept", Rule: "no \x1b[2J"},
				{Time: time.Unix(998, 0), Kind: "drop", From: "inside", Bytes: 2, Action: "drop", Reason: "ethernet_\x1b[2J"},
				{Time: time.Unix(997, 0), Kind: "drop", From: "inside", Protocol: "icmpv6", Src: "fe80::1", Dst: "ff02::16", ICMPType: new(uint8), ICMPCode: new(uint8),
					Bytes: 90, Action: "drop", Reason: "policy_default", OverLimit: "dns", Background: "mld"},
			},
			Rules: []Rule{
				{Name: "dns", Action: "accept", Datagrams: 10 * seconds, Bytes: 12345678, OverLimit: &limited},
				{Name: "no \x1b[2J", Action: "drop"},
			},
		}
	}
	return of(0), of(2)
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
