package integration_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestOverloadShedsWholeDatagrams stops the box while more fragments of many datagrams arrive than the
// queue of its TAP holds. The kernel must shed whole datagrams, and the box must forward the others
// completely.
func TestOverloadShedsWholeDatagrams(t *testing.T) {
	const (
		together  = 50
		datagrams = 100 * together
		fragments = 3
		// remembered is the minimum time for which the TAP's filter stores its decision on a
		// datagram. If the fragments of a datagram are sent more slowly, only some may pass, and
		// wait for the others.
		remembered = 250 * time.Millisecond
	)
	for _, mode := range []string{"reassemble", "validate"} {
		for _, f := range families {
			t.Run(mode+" "+f.name, func(t *testing.T) {
				w := startMute(t, fmt.Sprintf("[fragments]\nmode = %q\n", mode)+acceptAll)
				d := packettest.UDP(f.src, f.dst, packettest.Body(4000))
				must(t, syscall.Kill(w.Pid, syscall.SIGSTOP))
				slowest := time.Duration(0)
				for first := 0; first < datagrams; first += together {
					var frames [fragments][][]byte
					for i := range together {
						d.ID = uint32(first + i)
						for at, frame := range d.Fragments(1448) {
							frames[at] = append(frames[at], frame)
						}
					}
					begun := time.Now()
					for _, at := range frames {
						w.send(t, verdict.Inside, at...)
					}
					slowest = max(slowest, time.Since(begun))
				}
				must(t, syscall.Kill(w.Pid, syscall.SIGCONT))
				slow := slowest > remembered
				c := w.awaitCounters(t, verdict.Inside, func(c counters) bool {
					return c.received == datagrams*fragments && c.sum() == c.received && (slow || c.waiting == 0)
				})
				shed := c.dropped["fragment_shed"]
				whole := c.forwarded%fragments == 0 || slow
				if c.forwarded+c.waiting+shed != c.received || !whole || shed == 0 || c.forwarded+c.waiting < 3072 {
					t.Errorf("of %d fragments %d were forwarded and %d shed: %+v", c.received, c.forwarded, shed, c)
				}
			})
		}
	}
}
