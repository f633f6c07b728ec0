package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// standardStatus is the default address of the status server.
const standardStatus = "127.0.0.1:9477"

// ask requests a path from the status server in a namespace. It returns an error unless the status is
// 200.
func ask(ns *lab.Namespace, path string) (text string, err error) {
	err = ns.Do(func() error {
		c, err := net.Dial("tcp", standardStatus) // connects in the namespace of this thread
		if err != nil {
			return err
		}
		defer c.Close()
		client := http.Client{Transport: &http.Transport{
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return c, nil },
			DisableKeepAlives: true,
		}}
		r, err := client.Get("http://" + standardStatus + path)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if text = string(body); err == nil && r.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", path, r.Status)
		}
		return err
	})
	return text, err
}

// fetch requests a path from the status server in a namespace. The test fails unless the status is 200.
func fetch(t *testing.T, ns *lab.Namespace, path string) string {
	t.Helper()
	text, err := ask(ns, path)
	must(t, err)
	return text
}

// TestStatusOfARunningBox reads the status of a box by HTTP, by SIGUSR1 and with `fragwall status`, and
// checks the log in JSON.
func TestStatusOfARunningBox(t *testing.T) {
	b := startMute(t, onePort+"[log]\nformat = \"json\"\n")
	n, f := b.Network, families[0]
	for i, port := range []uint16{5300, 5301} {
		d := packettest.UDP(f.src, netip.AddrPortFrom(f.dst.Addr(), port), packettest.Body(4000))
		d.ID = uint32(i)
		b.send(t, verdict.Inside, d.Fragments(1448)...)
	}
	b.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.dropped["policy_default"] == 3 })

	metrics := fetch(t, n.Middle, "/metrics")
	for _, line := range []string{
		"fragwall_ready 1", `fragwall_rule_datagrams_total{rule="service"} 1`,
		`fragwall_dropped_frames_total{reason="policy_default",side="inside"} 3`, `fragwall_reassembled_datagrams_total{side="inside"} 2`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics have no line %s:\n%s", line, metrics)
		}
	}
	fetch(t, n.Middle, "/healthz")
	fetch(t, n.Middle, "/readyz")
	var report struct {
		Sides map[string]struct {
			Dropped map[string]int
		}
	}
	must(t, json.Unmarshal([]byte(fetch(t, n.Middle, "/api/status")), &report))
	if report.Sides["inside"].Dropped["policy_default"] != 3 {
		t.Errorf("%+v", report)
	}
	mark := len(b.stderr.String())
	b.signal(t, syscall.SIGUSR1)
	if printed := parseCounters(t, b.stderr.await(t, b.process, mark, `"counters","from":"outside".*\n`)); printed[verdict.Inside].dropped["policy_default"] != 3 {
		t.Errorf("the counters after SIGUSR1 are %+v", printed)
	}
	p := launch(t, n.Middle, nil, "status")
	if code := p.wait(t); code != 0 || !strings.Contains(p.stdout.String(), "policy_default") {
		t.Errorf("status: %d\n%s%s", code, p.stdout.String(), p.stderr.String())
	}

	for line := range strings.Lines(b.stderr.String()) { // includes the counters
		if !json.Valid([]byte(line)) {
			t.Errorf("log line is not JSON: %s", line)
		}
	}
	event := b.stderr.await(t, b.process, 0, `"msg":"drop"`)
	for line := range strings.Lines(event) {
		if !strings.Contains(line, `"msg":"drop"`) {
			continue
		}
		var e map[string]any
		must(t, json.Unmarshal([]byte(line), &e))
		if e["from"] != "inside" || e["dport"] != 5301.0 || e["reason"] != "policy_default" || e["fragments"] != 3.0 || e["protocol"] != "udp" {
			t.Errorf("unexpected drop event %v", e)
		}
	}
}

// TestMissedFrames stops a box for a while. Afterwards the box must report how many frames the kernel
// dropped in that time.
func TestMissedFrames(t *testing.T) {
	const sent = 10_000 // more than the TAP's queue and the box's buffers hold
	w := startMute(t, acceptAll)
	frames := make([][]byte, sent)
	for i := range frames {
		frames[i] = packettest.UDP(families[0].src, families[0].dst, nil).Frame()
	}
	w.signal(t, syscall.SIGSTOP)
	w.send(t, verdict.Inside, frames...)
	w.signal(t, syscall.SIGCONT)

	var missed int
	eventually(t, func() error {
		var report struct {
			Sides map[string]struct {
				Received int  `json:"received_frames"`
				Missed   *int `json:"missed_frames"`
			}
		}
		must(t, json.Unmarshal([]byte(fetch(t, w.Middle, "/api/status")), &report))
		in, out := report.Sides["inside"], report.Sides["outside"]
		if in.Missed == nil || out.Missed == nil || *in.Missed == 0 || in.Received+*in.Missed != sent || *out.Missed != 0 {
			return fmt.Errorf("of %d frames from inside: %+v", sent, report.Sides)
		}
		missed = *in.Missed
		return nil
	})
	metrics := fetch(t, w.Middle, "/metrics")
	for _, line := range []string{fmt.Sprintf(`fragwall_missed_frames_total{side="inside"} %d`, missed), `fragwall_missed_frames_total{side="outside"} 0`} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("no line %s in\n%s", line, metrics)
		}
	}
}
