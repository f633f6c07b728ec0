package integration_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestFloodMemory floods the box with more incomplete datagrams than it may hold, and checks
// the resident memory of the process: at most 1.5 times `memory` plus a constant.
func TestFloodMemory(t *testing.T) {
	const (
		memory   = 32 << 20
		constant = 64 << 20
		rings    = 26 << 20 // the rings of both sides: kernel memory that the process has mapped
		frames   = 50_000
	)
	limit := memory*3/2 + constant + rings
	if buildFlags[len(buildFlags)-1] == "-race" {
		limit *= 8 // the race detector needs more memory
	}
	for _, mode := range []string{"reassemble", "validate"} {
		for _, f := range families {
			t.Run(mode+" "+f.name, func(t *testing.T) {
				w := startMute(t, fmt.Sprintf("[fragments]\nmode = %q\nmemory = \"32MiB\"\n", mode)+acceptAll)
				flood := packettest.UDP(f.src, f.dst, packettest.Body(4000))
				for i := range frames {
					flood.ID = uint32(i)
					src := flood.Src.AsSlice()
					binary.BigEndian.PutUint16(src[1:], uint16(i)) // each datagram from another network
					flood.Src, _ = netip.AddrFromSlice(src)
					w.send(t, verdict.Inside, flood.Fragment(1400, flood.Payload[1400:2800], true))
					if i%2000 == 1999 { // do not send faster than the box reads
						w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received > i })
					}
				}
				c := w.counters(t)[verdict.Inside]
				if c.dropped["fragment_evicted"] == 0 {
					t.Errorf("no datagram was evicted: %+v", c)
				}
				if got := resident(t, w.Pid); got > limit {
					t.Errorf("%d MiB resident, limit %d", got>>20, limit>>20)
				}
			})
		}
	}
}

// resident returns the resident set size of a process in bytes (VmRSS in /proc/pid/status, proc(5)).
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmRSS:\n%s", text)
	}
	n, err := strconv.Atoi(string(m[1]))
	must(t, err)
	return n << 10
}
