package integration_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/packettest/evasion"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// soak is the duration of TestSoak.
var soak = flag.Duration("soak", 20*time.Second, "duration of the soak test")

// soakPolicy has little memory for fragments, so that it fills quickly.
const soakPolicy = onePort + `
[fragments]
memory = "8MiB"
timeout_ipv4 = "2s"
timeout_ipv6 = "2s"
`

// vitals are the values that must not grow.
type vitals struct {
	memory      int // resident, in KiB
	goroutines  int
	descriptors int
}

// most returns the maximum of each value.
func (v vitals) most(other vitals) vitals {
	return vitals{max(v.memory, other.memory), max(v.goroutines, other.goroutines), max(v.descriptors, other.descriptors)}
}

// measure reads the vitals. It also checks that the received frames equal the forwarded, dropped and
// waiting ones.
func (w *wires) measure(t *testing.T) vitals {
	t.Helper()
	metrics := fetch(t, w.Middle, "/metrics")
	sums := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^fragwall_(received_frames_total|forwarded_frames_total|dropped_frames_total|waiting_frames)\{(?:reason="\w+",)?side="(\w+)"\} (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		n, err := strconv.ParseFloat(m[3], 64)
		must(t, err)
		if m[1] == "received_frames_total" {
			n = -n
		}
		sums[m[2]] += n
	}
	if len(sums) != 2 || sums["inside"] != 0 || sums["outside"] != 0 {
		t.Errorf("received frames differ from the sum of the others by %v", sums)
	}
	of := func(path, expression string) int {
		text := metrics
		if path != "" {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.Pid, path))
			must(t, err)
			text = string(b)
		}
		m := regexp.MustCompile(expression).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing matches %s", expression)
		}
		n, err := strconv.Atoi(m[1])
		must(t, err)
		return n
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.Pid))
	must(t, err)
	return vitals{memory: of("status", `VmRSS:\s+(\d+)`), goroutines: of("", `fragwall_goroutines (\d+)`), descriptors: len(open)}
}

// soakFrames returns the frames of one round: whole packets and fragments that pass, others that are
// denied, fragments of datagrams that never complete and, in some rounds, attacks.
func soakFrames(round uint32) (frames [][]byte) {
	for i, f := range families {
		for j := range uint32(8) {
			port := uint16(5300 + j%2)
			d := packettest.UDP(f.src, netip.AddrPortFrom(f.dst.Addr(), port), packettest.Body(100+int(j)*500))
			d.ID = (round*8+j)*2 + uint32(i)
			if j < 3 {
				frames = append(frames, d.Frame())
				continue
			}
			fragments := d.Fragments(1448)
			if j == 7 {
				fragments = fragments[:1]
			}
			frames = append(frames, fragments...)
		}
	}
	if round%17 != 0 {
		return frames
	}
	for _, c := range evasion.Cases() {
		for _, family := range c.Frames {
			for _, f := range family {
				frames = append(frames, f.Data)
			}
		}
	}
	return frames
}

// TestSoak sends mixed traffic for a long time, and checks that the vitals do not grow.
func TestSoak(t *testing.T) {
	w := startMute(t, soakPolicy)
	begun := time.Now()
	warm, half := *soak/4, *soak/2
	var first, last vitals // maximum in the second quarter, and in the second half
	measured := time.Time{}
	for round := uint32(0); time.Since(begun) < *soak; round++ {
		frames := lab.Between(w.Hosts[verdict.Inside], w.Hosts[verdict.Outside], soakFrames(round)...)
		must(t, w.sockets[verdict.Inside].Send(frames...))
		for side := range w.sockets {
			_, err := w.sockets[side].Drain()
			must(t, err)
		}
		if time.Since(measured) < time.Second {
			continue
		}
		measured = time.Now()
		switch v, passed := w.measure(t), time.Since(begun); {
		case passed > half:
			last = last.most(v)
		case passed > warm:
			first = first.most(v)
		}
	}
	w.settle(t)
	w.measure(t)
	t.Logf("before %v: %+v; later %+v; from inside %+v", half, first, last, w.counters(t)[verdict.Inside])
	if last.goroutines > first.goroutines+2 || last.descriptors > first.descriptors+2 || last.memory > first.memory+first.memory/4 {
		t.Errorf("the process grew from %+v to %+v", first, last)
	}
	for reason := range w.counters(t)[verdict.Inside].dropped {
		if reason == verdict.Passed.String() {
			t.Error("frames were dropped without a reason")
		}
	}
}
