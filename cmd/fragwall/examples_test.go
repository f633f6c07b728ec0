package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestExamples checks that every example is valid and that its comments explain it.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.toml")
	if err != nil || len(files) < 6 {
		t.Fatalf("examples %v: %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			code, stdout, stderr := run("check", "-c", file)
			if code != 0 || stderr != "" {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			text, err := os.ReadFile(file)
			if err != nil || !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "\n# Why: ") {
				t.Errorf("no explanation: %v", err)
			}
		})
	}
}

// exampleCase is a datagram and the expected verdict of an example on it.
type exampleCase struct {
	from     verdict.Side
	datagram packettest.Datagram
	want     string // name of the rule that accepts it, "flow", or the reason for the drop
}

func datagram(src, dst string, size int) packettest.Datagram {
	return packettest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), packettest.Body(size))
}

// protocol returns a datagram of a protocol without ports.
func protocol(number uint8, src, dst string, size int) packettest.Datagram {
	return packettest.Datagram{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: number, Payload: packettest.Body(size)}
}

// tooBig returns an ICMPv4 "fragmentation needed" message with an MTU of 1280 (RFC 1191,
// section 4).
func tooBig(src, dst string) packettest.Datagram {
	d := protocol(1, src, dst, 36)
	copy(d.Payload, []byte{3, 4, 0, 0, 0, 0, 1280 >> 8, 1280 & 0xff})
	return d
}

// TestExampleVerdicts checks the verdicts of the examples on small datagrams and on fragmented
// ones.
func TestExampleVerdicts(t *testing.T) {
	const in, out = verdict.Inside, verdict.Outside
	for example, cases := range map[string][]exampleCase{
		"resolver": {
			{out, datagram("198.51.100.9:40000", "192.0.2.53:53", 40), "client queries"},
			{in, datagram("192.0.2.53:53", "198.51.100.9:40000", 3800), "client queries"},
			{out, datagram("[2001:db8:100::9]:40000", "[2001:db8:53::53]:53", 40), "client queries"},
			{in, datagram("[2001:db8:53::53]:53", "[2001:db8:100::9]:40000", 3800), "client queries"},
			{in, datagram("192.0.2.53:30000", "203.0.113.1:53", 40), "resolver queries"},
			{out, datagram("203.0.113.1:53", "192.0.2.53:30000", 3800), "resolver queries"},
			{out, datagram("203.0.113.1:5353", "192.0.2.53:30000", 3800), "policy_default"},
			{out, datagram("203.0.113.9:40000", "192.0.2.53:53", 40), "policy_default"},
			{out, datagram("203.0.113.1:53", "192.0.2.53:30001", 3800), "policy_default"},
		},
		"voip": {
			{in, datagram("10.20.0.7:5060", "203.0.113.1:5060", 2600), "signalling out"},
			{out, datagram("203.0.113.1:5060", "10.20.0.7:5060", 2600), "signalling in"},
			{out, datagram("203.0.113.77:5060", "10.20.0.7:5060", 2600), "policy_default"},
			{out, datagram("203.0.113.2:12000", "10.20.0.7:14000", 172), "media in"},
			{in, datagram("[2001:db8:20::7]:14000", "[2001:db8:5060::1]:12000", 172), "media out"},
			{out, datagram("203.0.113.2:12000", "10.20.0.7:14000", 2600), "policy_default"},
			{out, datagram("10.20.0.8:12000", "10.20.0.7:14000", 172), "policy_default"},
			{out, tooBig("198.51.100.1", "10.20.0.7"), "too big"},
		},
		"ipsec": {
			{out, datagram("198.51.100.7:500", "192.0.2.1:500", 3000), "ike in"},
			{in, datagram("192.0.2.1:4500", "198.51.100.7:4500", 3000), "ike out"},
			{out, protocol(50, "203.0.113.5", "192.0.2.1", 1600), "esp in"},
			{in, protocol(50, "2001:db8::1", "2001:db8:7::1", 1600), "esp out"},
			{out, protocol(50, "192.0.2.1", "203.0.113.5", 1600), "policy_default"},
			{out, tooBig("198.51.100.1", "192.0.2.1"), "too big"},
			{out, protocol(50, "203.0.114.5", "192.0.2.1", 1600), "policy_default"},
			{out, datagram("198.51.100.8:500", "192.0.2.1:500", 3000), "policy_default"},
			{out, protocol(47, "198.51.100.7", "192.0.2.1", 1600), "policy_default"},
		},
		"game": {
			{out, datagram("203.0.113.9:50000", "192.0.2.27:27015", 60), "players"},
			{in, datagram("192.0.2.27:27015", "203.0.113.9:50000", 2400), "flow"},
			{out, datagram("203.0.113.9:50000", "192.0.2.27:27015", 2400), "policy_rule"},
			{out, datagram("203.0.113.9:50001", "192.0.2.27:27015", 2400), "policy_rule"},
			{out, datagram("203.0.113.9:53", "192.0.2.27:40000", 2400), "policy_default"},
			{in, datagram("192.0.2.27:40000", "203.0.113.9:53", 40), "server requests"},
			{out, datagram("203.0.113.9:53", "192.0.2.27:40000", 2400), "flow"},
		},
		"sidecar": {
			{out, datagram("10.2.0.9:40000", "10.1.0.5:53", 40), "questions"},
			{in, datagram("10.1.0.5:53", "10.2.0.9:40000", 3800), "answers"},
			{out, datagram("10.2.0.9:40000", "10.1.0.5:5353", 3800), "policy_default"},
			{in, datagram("10.1.0.5:40000", "10.2.0.9:53", 40), "policy_default"},
			{out, tooBig("10.2.0.1", "10.1.0.5"), "too big"},
		},
	} {
		t.Run(example, func(t *testing.T) {
			path, err := filepath.Abs("../../examples/" + example + ".toml")
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			var arrivals []packettest.Arrival
			for i, c := range cases {
				c.datagram.ID = uint32(i + 1)
				arrivals = append(arrivals, packettest.Arrivals(time.Duration(i)*time.Second, c.from, framesOf(c.datagram)...)...)
			}
			writeCapture(t, "in.pcapng", arrivals)
			code, stdout, stderr := run("replay", "-c", path, "--json", "--inside-interface", "0", "--outside-interface", "1", "-o", "out.pcapng", "in.pcapng")
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			got := lastVerdicts(t, stdout)
			for i, c := range cases {
				at := began.Add(time.Duration(i) * time.Second)
				if got[at] != c.want {
					t.Errorf("case %d, from %v, %d bytes: %q, want %q", i, c.from, len(c.datagram.Payload), got[at], c.want)
				}
			}
		})
	}
}

// framesOf returns the frames of a datagram: one if the payload has at most 1440 bytes,
// otherwise fragments.
func framesOf(d packettest.Datagram) [][]byte {
	if len(d.Payload) <= 1440 {
		return [][]byte{d.Frame()}
	}
	return d.Fragments(1440)
}

// lastVerdicts returns the last verdict at each time: the name of the rule, "flow", or the
// reason for the drop.
func lastVerdicts(t *testing.T, lines string) map[time.Time]string {
	t.Helper()
	verdicts := make(map[time.Time]string)
	for line := range strings.Lines(lines) {
		var d struct {
			Time                  time.Time
			Verdict, Reason, Rule string
		}
		if !strings.HasPrefix(line, "{") {
			continue // the summary
		}
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch {
		case d.Verdict != "accept":
			verdicts[d.Time] = d.Reason
		case d.Rule == "":
			verdicts[d.Time] = "flow"
		default:
			verdicts[d.Time] = d.Rule
		}
	}
	return verdicts
}
