package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"fragwall/cmd/fragwall/internal/control"
	"fragwall/cmd/fragwall/internal/trace"
)

var receivedInside = regexp.MustCompile(`(?m)^fragwall_received_frames_total{side="inside"} (\S+)$`)

// scrape returns the number of frames received from the inside according to the status server.
func scrape(client *http.Client, address string) (received uint64, err error) {
	response, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	m := receivedInside.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no counter in %q", text)
	}
	return strconv.ParseUint(string(m[1]), 10, 64)
}

// readyAt returns an error if the status server reports that no frames flow.
func readyAt(client *http.Client, address string) (uint64, error) {
	response, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		return 0, err
	}
	if err := response.Body.Close(); err != nil || response.StatusCode == http.StatusOK {
		return 0, err
	}
	return 0, errors.New(response.Status)
}

// TestReplaceAnswers replaces a process while frames flow and clients send requests
// continuously. All requests must be answered, and counters must not decrease from one answer
// to the next.
func TestReplaceAnswers(t *testing.T) {
	address := freeAddress(t)
	n, config := newNetwork(t), replaceable(address)
	last := n.start(config, "1.0.0", false)
	last.output.await(t, "ready")
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	kept := &http.Client{Transport: &http.Transport{}}
	defer kept.CloseIdleConnections()
	reporter, err := control.Instance{Socket: "x.sock"}.Reporter()
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	var done atomic.Bool
	for name, ask := range map[string]func() (received uint64, err error){
		"a connection for each scrape": func() (uint64, error) { return scrape(fresh, address) },
		"one connection":               func() (uint64, error) { return scrape(kept, address) },
		"readiness":                    func() (uint64, error) { return readyAt(fresh, address) },
		"control socket": func() (uint64, error) {
			r, _, err := reporter(t.Context())
			if err != nil {
				return 0, err
			}
			return r.Sides["inside"].Forwarded, nil
		},
	} {
		clients.Go(func() {
			for before := uint64(0); !done.Load(); {
				now, err := ask()
				if err != nil || now < before {
					t.Errorf("%s: %d frames, %d before, %v", name, now, before, err)
				}
				before = now
			}
		})
	}
	first := last
	clients.Go(func() {
		for !done.Load() {
			first.passes() // through the process that forwards
		}
	})
	for i := range 10 {
		next := n.start(config, fmt.Sprintf("1.%d.0", i+1), true)
		next.output.await(t, "ready")
		if err := <-last.ended; err != nil {
			t.Error(err)
		}
		last = next
	}
	done.Store(true)
	clients.Wait()
	n.ends(last)
}

// TestReplaceEndsCaptures replaces a process while a client captures. The client must be told.
func TestReplaceEndsCaptures(t *testing.T) {
	n, config := newNetwork(t), replaceable("")
	first := n.start(config, "1.0.0", false)
	first.output.await(t, "ready")
	begun, ended := make(chan struct{}), make(chan error, 1)
	begin := sync.OnceFunc(func() { close(begun) })
	go func() {
		ended <- control.Instance{Socket: "x.sock"}.Follow(t.Context(), control.RequestCapture, trace.Request{SnapLength: 100}, func([]byte) error {
			begin()
			return nil
		})
	}()
	<-begun
	second := n.start(config, "1.1.0", true)
	if err := <-ended; !errors.Is(err, control.ErrReplaced) {
		t.Errorf("the capture ended with %v", err)
	}
	second.output.await(t, "ready")
	if err := <-first.ended; err != nil {
		t.Error(err)
	}
	n.ends(second)
}

// TestReplaceKeepsReloads changes the configuration after the new process has read it, and
// makes the old process reload before the take-over. The new process must reload as well.
func TestReplaceKeepsReloads(t *testing.T) {
	n, config := newNetwork(t), replaceable("")
	first := n.start(config, "1.0.0", false)
	first.output.await(t, "ready")
	startup := n.load(config, "1.1.0")
	write(t, "1.1.0.toml", config+"[[rule]]\nname = \"later\"\naction = \"drop\"\nprotocol = \"tcp\"\n")
	first.reload <- syscall.SIGHUP
	first.output.await(t, "msg=reloaded")
	second := n.run(startup, "1.1.0", true)
	second.output.await(t, "msg=reloaded generation=3")
	if err := <-first.ended; err != nil {
		t.Error(err)
	}
	third := n.start(config, "1.2.0", true)
	third.output.await(t, "ready")
	if err := <-second.ended; err != nil {
		t.Error(err)
	}
	n.ends(third)
	if strings.Contains(third.output.String(), "msg=reloaded") {
		t.Error("the third process read its configuration after the last reload, and reloaded")
	}
}

// TestReloadOfReplaced checks that a reload has no effect, and reports so, if another process
// is taking over or has taken over.
func TestReloadOfReplaced(t *testing.T) {
	d := New(Options{Startup: &Startup{config: parseConfig(t, replaceable(""))}, Stderr: io.Discard})
	d.changing.Lock() // as [giver.Hold] does
	ended := make(chan control.Outcome)
	go func() { ended <- d.reload() }()
	select {
	case o := <-ended:
		t.Fatalf("the reload returned %+v while the wire was held", o)
	default:
	}
	d.replaced.Store(true)
	d.changing.Unlock()
	if o := <-ended; !o.Replaced {
		t.Errorf("%+v", o)
	}
	if err := d.change(func() error { return context.Canceled }); !errors.Is(err, control.ErrReplaced) {
		t.Error(err)
	}
}
