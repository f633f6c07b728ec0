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

// TestFloodStaysInMemory floods the box with twice the number of incomplete datagrams
// that it may hold, and checks the memory of the process: at most 1.5 times `memory` plus
// the constant in docs/attack.md.
func TestFloodStaysInMemory(t *testing.T) {
	const (
		memory   = 32 << 20
		constant = 64 << 20
		ring     = 13 << 20 // of the side: memory of the kernel's that the process has mapped
		frames   = 50_000
	)
	limit := memory*3/2 + constant + ring
	if buildFlags[len(buildFlags)-1] == "-race" {
		limit *= 8 // what the race detector takes beside
	}
	for _, mode := range []string{"reassemble", "validate"} {
		for _, f := range families {
			t.Run(mode+" "+f.name, func(t *testing.T) {
				w := startMute(t, fmt.Sprintf("[fragments]\nmode = %q\nmemory = \"32MiB\"\n", mode)+acceptAll)
				flood := packettest.UDP(f.src, f.dst, packettest.Body(4000))
				for i := range frames {
					flood.ID = uint32(i)
					src := flood.Src.AsSlice()
					binary.BigEndian.PutUint16(src[1:], uint16(i)) // another network each
					flood.Src, _ = netip.AddrFromSlice(src)
					w.send(t, verdict.Inside, flood.Fragment(1400, flood.Payload[1400:2800], true))
					if i%2000 == 1999 { // no faster than the box reads
						w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received > i })
					}
				}
				c := w.counters(t)[verdict.Inside]
				if c.dropped["fragment_evicted"] == 0 {
					t.Errorf("nothing gave way: %+v", c)
				}
				if got := resident(t, w.Pid); got > limit {
					t.Errorf("%d MiB resident, limit %d", got>>20, limit>>20)
				}
			})
		}
	}
}

// resident returns the bytes of a process's resident set (proc(5), VmRSS).
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
