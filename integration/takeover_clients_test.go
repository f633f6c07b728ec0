package integration_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestTakeOverClients replaces the process while clients use its control socket. Clients that read
// continuously must continue with the next process, and all others must get a response.
func TestTakeOverClients(t *testing.T) {
	w, before := replaceMute(t, stateful)
	capture := capturing(t, w)
	flows := launch(t, w.Middle, nil, "flows", "-c", w.file, "--watch", "--interval", "100ms", "--json")
	status := launch(t, w.Middle, nil, "status", "-c", w.file, "--watch", "--interval", "100ms", "--json")
	done := make(chan struct{})
	var asking sync.WaitGroup
	for _, command := range []string{"reload", "flows --count", "waiting", "status"} {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				arguments := append(strings.Fields(command), "-c", w.file)
				if p := launch(t, w.Middle, nil, arguments...); p.wait(t) != 0 {
					t.Errorf("%s: exit code %d: %s", command, p.code, p.stderr.String())
				}
			}
		})
	}
	frame := packettest.UDP(families[0].src, families[0].dst, []byte("x")).Frame()
	const times = 5
	for i := range times {
		w.takeOver(t, w.file)
		capture.stderr.await(t, capture, 0, strings.Repeat(`(?s:.*)another process took over`, i+1))
		lines := func() int { return strings.Count(capture.stdout.String(), "\n") }
		captured := lines()
		eventually(t, func() error { // the capture may begin after the first frames
			w.send(t, verdict.Inside, frame)
			expectFrames(t, w.sockets[verdict.Outside], frame)
			if lines() == captured {
				return errors.New("the capture shows no frame of the new process")
			}
			return nil
		})
	}
	close(done)
	asking.Wait()
	for _, p := range []*process{capture, flows, status} {
		if p.hasEnded() {
			t.Errorf("a client ended with %d: %s", p.code, p.stderr.String())
			continue
		}
		p.signal(t, syscall.SIGINT)
	}
	if captured, _ := captureCounts(t, capture); captured < times {
		t.Errorf("%d frames captured, want at least %d", captured, times)
	}
	for _, p := range []*process{flows, status} {
		if code := p.wait(t); code != 0 || p.stderr.String() != "" {
			t.Errorf("exit code %d: %s", code, p.stderr.String())
		}
	}
	var last struct {
		Sides map[string]struct {
			Forwarded int `json:"forwarded_frames"`
		}
	}
	lines := strings.Split(strings.TrimSpace(status.stdout.String()), "\n")
	must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	if last.Sides["inside"].Forwarded < times-1 { // the last frames may have arrived after the last status
		t.Errorf("the last status has fewer than %d forwarded frames: %s", times-1, lines[len(lines)-1])
	}
	w.endAs(t, before)
}
