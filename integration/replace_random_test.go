package integration_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"fragwall/integration/meter"
	"fragwall/packet/verdict"
	"fragwall/rules"
)

// TestReplaceAtRandom makes hand-overs at random times, some of which fail at each possible step, while
// flows begin and end. Nothing may be lost, duplicated or reordered, no counter may decrease, and each
// frame that the kernel passes up must be counted once.
func TestReplaceAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i, mode := range []string{"reassemble", "validate"} {
		t.Run(mode, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			n, before := newMiddle(t)
			h := &replaced{socket: filepath.Join(t.TempDir(), "control")}
			h.box = &box{Network: n, file: configure(t, devices+stateful+fmt.Sprintf("[fragments]\nmode = %q\n", mode))}
			h.process = h.launch(t)
			h.ready(t)
			h.needFastPath(t)
			// There are no TCP streams, because TCP retransmits when the wire is held for long.
			load := meter.Load{Small: 500 + r.IntN(2000), Fragmented: 20 + r.IntN(80)}
			running, uncounted := joints(t, n.Middle), h.uncounted(t)
			h.underLoad(t, load, func(m *meter.Meter) {
				h.amidNewFlows(t, r.Uint64(), func() {
					for range 4 * handoverScale().times {
						h.attempt(t, r)
						if r.IntN(3) > 0 {
							flows(t, m, load, time.Duration(r.IntN(300))*time.Millisecond)
						}
					}
				})
			})
			if now := h.uncounted(t); now != uncounted {
				t.Errorf("frames that reached the process and were not counted as passed up, by side: %d, before %d", now, uncounted)
			}
			sameJoints(t, n.Middle, running) // with as many programs
			h.endAs(t, before)
		})
	}
}

// replaced is a box whose process is replaced, with its own control socket.
type replaced struct {
	*box
	socket string
}

// launch starts a process with the configuration and the control socket of the box.
func (h *replaced) launch(t *testing.T, more ...string) *process {
	t.Helper()
	return launch(t, h.Middle, nil, append([]string{"run", "-c", h.file, "--socket", h.socket}, more...)...)
}

// amidNewFlows calls do while meters start and stop, each of which opens new flows.
func (h *replaced) amidNewFlows(t *testing.T, seed uint64, do func()) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	var work errgroup.Group
	done := make(chan struct{})
	total := 0
	work.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			default:
			}
			m, err := meter.Start(h.Hosts, meter.Load{Small: 200 + r.IntN(800), Fragmented: r.IntN(30)})
			if err != nil {
				return err
			}
			time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond) // duration of the flows
			report, err := m.Stop()
			if err != nil {
				return err
			}
			total++
			if faults := report.Faults(nil); faults != nil {
				return fmt.Errorf("faults of new flows: %v\n%v", faults, report)
			}
		}
	})
	do()
	close(done)
	if err := work.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("flows began and ended %d times", total)
}

// uncounted returns, by side, the number of frames that reached the process, minus those that the programs
// of the fast path counted as passed up. There must be no traffic.
func (h *replaced) uncounted(t *testing.T) (frames [verdict.Sides]int) {
	t.Helper()
	var again [verdict.Sides]int
	eventually(t, func() error { // the kernels of the hosts may send packets on their own
		for from := range verdict.Side(verdict.Sides) {
			fast := h.fastPath(t).Sides[from.String()]
			again[from] = h.counters(t)[from].received - fast.Forwarded - fast.Dropped
			for _, n := range fast.PassedUp {
				again[from] -= n
			}
		}
		if again == frames {
			return nil
		}
		frames = again
		return fmt.Errorf("frames arrive that are not counted as passed up: %v", frames)
	})
	return frames
}

// attempt tries to replace the process in one of several ways, some of which fail.
func (h *replaced) attempt(t *testing.T, r *rand.Rand) {
	t.Helper()
	switch r.IntN(4) {
	case 0: // two hand-overs without a pause
		h.succeed(t)
		h.succeed(t)
	case 1:
		h.refused(t)
	case 2:
		must(t, h.abandon(t, r.IntN(len(takeoverSteps)), time.Duration(r.IntN(400))*time.Millisecond))
	default:
		h.killed(t, time.Duration(r.IntN(int(h.succeed(t))))*9/10)
	}
}

// succeed replaces the process, and returns the duration.
func (h *replaced) succeed(t *testing.T) time.Duration {
	t.Helper()
	begun := time.Now()
	old, successor := h.process, h.launch(t, "--replace")
	successor.stderr.await(t, successor, 0, "took over")
	took := time.Since(begun)
	h.process = successor
	if code := old.wait(t); code != 0 {
		t.Fatalf("the old process ended with %d:\n%s", code, old.stderr.String())
	}
	successor.ready(t)
	return took
}

// refused starts a process with other devices, which must not take over.
func (h *replaced) refused(t *testing.T) {
	t.Helper()
	own := h.file
	text, err := os.ReadFile(own)
	must(t, err)
	h.file = configure(t, strings.Replace(string(text), "[outside]", "queues = 1\n[outside]", 1))
	p := h.launch(t, "--replace")
	h.file = own
	if code := p.wait(t); code != 1 || !strings.Contains(p.stderr.String(), "differ") {
		t.Fatalf("a process with other devices ended with %d:\n%s", code, p.stderr.String())
	}
}

// killed starts a new process and kills it after a time, unless it has taken over by then.
func (h *replaced) killed(t *testing.T, moment time.Duration) {
	t.Helper()
	said := len(h.stderr.String())
	p := h.launch(t, "--replace")
	time.Sleep(moment) // the moment of the kill is what the test varies
	must(t, p.Signal(unix.SIGSTOP))
	// If the new process has sent its last message, the old one logs the take-over at once.
	for deadline := time.Now().Add(500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if strings.Contains(h.stderr.String()[said:], "another process took over") {
			must(t, p.Signal(unix.SIGCONT))
			h.wait(t)
			h.process = p
			h.ready(t)
			return
		}
	}
	must(t, p.Kill())
	p.wait(t)
	eventually(t, func() error { return h.abandon(t, 0, 0) }) // succeeds when the old process has detected the end of the connection
}

// takeoverSteps lists the messages that a process sends to take over, and the kind of the messages that it
// reads after each (cmd/fragwall/internal/takeover).
var takeoverSteps = [...]struct{ send, read string }{
	{read: "offer"}, {send: "copy", read: "e"}, {send: "hold", read: "held"}, {read: "e"}, {send: "take", read: "go"},
}

// abandon acts as a process that takes over, and closes the connection after the step last of takeoverSteps
// and a pause. The process of the box must continue.
func (h *replaced) abandon(t *testing.T, last int, pause time.Duration) error {
	t.Helper()
	said := len(h.stderr.String())
	c, err := net.Dial("unix", h.socket)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(waitTimeout)))
	_, err = fmt.Fprintf(c, "replace %s\n", h.request(t))
	must(t, err)
	for _, s := range takeoverSteps[:last+1] {
		if s.send != "" {
			must(t, put(c, map[string]string{"kind": s.send}))
		}
		for got := ""; got != s.read; {
			if got, err = next(c); err != nil {
				return err
			}
		}
	}
	time.Sleep(pause) // the pause is what the test varies
	must(t, c.Close())
	h.stderr.await(t, h.process, said, "this process continues")
	return nil
}

// request returns the request that a process with the same configuration sends.
func (h *replaced) request(t *testing.T) []byte {
	t.Helper()
	config, err := rules.Load(h.file)
	must(t, err)
	request := map[string]any{
		"format": 1, "version": "test", "socket": h.socket, "status": config.Status.Listen,
		"devices": [verdict.Sides]rules.Interface{verdict.Inside: config.Inside, verdict.Outside: config.Outside},
	}
	must(t, h.Middle.Do(func() (err error) {
		request["namespace"], err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}))
	text, err := json.Marshal(request)
	must(t, err)
	return text
}

// put sends a message of the take-over protocol.
func put(c net.Conn, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint32([]byte{'m'}, uint32(len(text))), text...))
	return err
}

// next reads the next frame of the take-over protocol. It returns the kind of a message, or the type of
// another frame. It does not receive descriptors.
func next(c net.Conn) (kind string, err error) {
	var header [5]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return "", err
	}
	body := make([]byte, binary.BigEndian.Uint32(header[1:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return "", err
	}
	if header[0] != 'm' {
		return string(header[:1]), nil
	}
	var message struct{ Kind, Error string }
	if err := json.Unmarshal(body, &message); err != nil {
		return "", err
	}
	if message.Error != "" {
		return "", fmt.Errorf("the process aborted the hand-over: %s", message.Error)
	}
	return message.Kind, nil
}
