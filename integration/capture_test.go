package integration_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// capturePolicy accepts one port, and drops another one by a rule.
const capturePolicy = onePort + `
[[rule]]
name = "no shells"
action = "drop"
protocol = ["udp", "tcp"]
dst_port = 22
[fragments]
timeout_ipv4 = "1s"
[log]
drops = "off"
`

// captureTraffic sends a frame that passes, a frame that a rule drops, and the fragments of three
// datagrams: a complete one, one with an overlap, and an incomplete one. It returns the number of
// frames.
func captureTraffic(t *testing.T, w *wires) (frames int) {
	t.Helper()
	f := families[0]
	datagram := func(port uint16, id uint32, size int) packettest.Datagram {
		d := packettest.UDP(f.src, netip.AddrPortFrom(f.dst.Addr(), port), packettest.Body(size))
		d.ID = id
		return d
	}
	overlap := datagram(5300, 2, 3000)
	all := slices.Concat(
		[][]byte{datagram(5300, 0, 10).Frame(), datagram(22, 0, 10).Frame()},
		datagram(5300, 1, 3000).Fragments(1480),
		[][]byte{overlap.Fragments(1480)[0], overlap.Fragment(8, overlap.Payload[8:16], true)},
		datagram(5300, 3, 3000).Fragments(1480)[1:2],
	)
	w.send(t, verdict.Inside, all...)
	return len(all)
}

// captureComments lists the expected comments on the frames of captureTraffic.
var captureComments = []string{
	`accept: rule "service", line 11`, `drop: policy_rule: rule "no shells", line 17`,
	`accept: rule "service", line 11`, `accept: rule "service", line 11`, `accept: rule "service", line 11`,
	"drop: fragment_overlap", "drop: fragment_overlap", "drop: fragment_timeout, missing bytes 0-1479 2960-",
}

// capturing starts `fragwall capture`, and waits until the capture has begun.
func capturing(t *testing.T, w *wires, arguments ...string) *process {
	t.Helper()
	p := launch(t, w.Middle, nil, append([]string{"capture", "-c", w.file}, arguments...)...)
	p.stderr.await(t, p, 0, `capturing`)
	return p
}

var captureEnd = regexp.MustCompile(`(\d+) (frames?|decisions?) captured, (\d+) frames? missed\n$`)

// captureCounts waits until a capture ends, and returns the counts that it prints.
func captureCounts(t *testing.T, p *process) (captured, missed int) {
	t.Helper()
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	m := captureEnd.FindStringSubmatch(p.stderr.String())
	if m == nil {
		t.Fatalf("no counts at the end: %s", p.stderr.String())
	}
	captured, _ = strconv.Atoi(m[1])
	missed, _ = strconv.Atoi(m[3])
	return captured, missed
}

// TestCapture captures traffic in each output format, and compares it with tshark and tcpdump.
func TestCapture(t *testing.T) {
	w := startMute(t, capturePolicy)
	file := filepath.Join(t.TempDir(), "out.pcapng")
	text, toFile, records := capturing(t, w), capturing(t, w, "-w", file), capturing(t, w, "--json")
	dropped := capturing(t, w, "--dropped", "--reason", "fragment_timeout,policy_rule", "-c", "2", "-w", "-")
	piped := exec.Command("tshark", "-r", "-", "-T", "fields", "-e", "frame.comment")
	frames := captureTraffic(t, w)

	if captured, missed := captureCounts(t, dropped); captured != 2 || missed != 0 {
		t.Errorf("%d captured, %d missed", captured, missed)
	}
	piped.Stdin = strings.NewReader(dropped.stdout.String())
	output, err := piped.Output()
	must(t, err)
	if want := captureComments[1] + "\n" + captureComments[7] + "\n"; string(output) != want {
		t.Errorf("tshark read\n%s\nwant\n%s", output, want)
	}

	last := `frag 3:1480@1480\+\) \[drop: fragment_timeout, missing bytes 0-1479 2960-\]\n`
	text.stdout.await(t, text, 0, last)
	records.stdout.await(t, records, 0, `"fragment_timeout"`)
	for _, p := range []*process{text, toFile, records} {
		p.signal(t, syscall.SIGINT)
	}
	for _, p := range []*process{text, toFile} {
		if captured, missed := captureCounts(t, p); captured != frames || missed != 0 {
			t.Errorf("%d captured, %d missed; want %d captured, 0 missed", captured, missed, frames)
		}
	}
	comments := regexp.MustCompile(`(?m) \[(.*)\]$`).FindAllStringSubmatch(text.stdout.String(), -1)
	var got []string
	for _, m := range comments {
		got = append(got, m[1])
	}
	if !slices.Equal(got, captureComments) {
		t.Errorf("comments %q, want %q\n%s", got, captureComments, text.stdout.String())
	}
	checkPcapng(t, file)
	checkCaptured(t, text.stdout.String(), file)

	decisions := 0
	for line := range strings.Lines(records.stdout.String()) {
		var d struct{ Verdict, From string }
		must(t, json.Unmarshal([]byte(line), &d))
		if decisions++; d.From != "inside" || d.Verdict == "" {
			t.Errorf("unexpected record: %s", line)
		}
	}
	if captured, _ := captureCounts(t, records); captured != 6 || decisions != 6 {
		t.Errorf("%d decisions printed, %d counted; want 6", decisions, captured)
	}
}

// checkPcapng checks that a file contains the frames of captureTraffic with their comments.
func checkPcapng(t *testing.T, file string) {
	t.Helper()
	output, err := exec.Command("tshark", "-r", file, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.len", "-e", "frame.comment").Output()
	must(t, err)
	var want strings.Builder
	for i, length := range []int{52, 52, 1514, 1514, 82, 1514, 42, 1514} {
		fmt.Fprintf(&want, "inside\t%d\t%s\n", length, captureComments[i])
	}
	if string(output) != want.String() {
		t.Errorf("tshark read\n%s\nwant\n%s", output, want.String())
	}
}

// checkCaptured compares the lines of `fragwall capture` with those of tcpdump.
func checkCaptured(t *testing.T, lines, file string) {
	t.Helper()
	output, err := exec.Command("tcpdump", "-n", "-S", "-t", "-r", file).Output()
	must(t, err)
	ours := regexp.MustCompile(`(?m)^\S+ inside (.*?)( \(frag .*\))? \[.*\]$`).ReplaceAllString(lines, "$1")
	if ours != string(output) {
		t.Errorf("capture prints\n%s\ntcpdump prints\n%s", ours, output)
	}
}

// TestCaptureLosesNoFrames checks that no frame is lost while one capture does not read and another one
// disconnects.
func TestCaptureLosesNoFrames(t *testing.T) {
	const frames = 30_000
	w := startMute(t, acceptAll)
	const enough = 8192 // more frames than the stopped client has received before it continues
	stopped, killed := capturing(t, w, "-w", "-", "-c", strconv.Itoa(enough)), capturing(t, w)
	stopped.signal(t, syscall.SIGSTOP)
	frame := packettest.UDP(families[0].src, families[0].dst, packettest.Body(1400)).Frame()
	batch := slices.Repeat([][]byte{frame}, 1000)
	for sent := 0; sent < frames; sent += len(batch) {
		w.send(t, verdict.Inside, batch...)
		if sent == frames/2 {
			killed.signal(t, syscall.SIGKILL)
		}
		w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received >= sent+len(batch) })
	}
	c := w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received == frames })
	if c.forwarded+c.dropped["egress_failed"] != frames {
		t.Errorf("%+v", c)
	}
	stopped.signal(t, syscall.SIGCONT)
	if captured, missed := captureCounts(t, stopped); captured != enough || missed == 0 || captured+missed > frames {
		t.Errorf("%d captured, %d missed of %d", captured, missed, frames)
	}
}

// TestCaptureFastPath captures a flow of the fast path. During the capture its frames use the
// process, and after it the fast path again.
func TestCaptureFastPath(t *testing.T) {
	w := startMute(t, acceptAll)
	w.needFastPath(t)
	frame := packettest.UDP(families[0].src, families[0].dst, packettest.Body(100)).Frame()
	taken := func() int { return int(w.fastPath(t).Sides["inside"].Forwarded) }
	untilFast := func() {
		t.Helper()
		eventually(t, func() error { // the fast path takes a flow only after some time
			before := taken()
			w.send(t, verdict.Inside, frame)
			if taken() == before {
				return fmt.Errorf("the fast path forwards nothing: %+v", w.fastPath(t))
			}
			return nil
		})
	}
	untilFast()
	const frames = 100
	other := capturing(t, w, "--dport", "9", "-c", "1")
	untilFast() // the capture's filter does not match this flow
	p := capturing(t, w, "--dport", "5300", "-c", strconv.Itoa(frames))
	w.send(t, verdict.Inside, slices.Repeat([][]byte{frame}, frames)...)
	if captured, missed := captureCounts(t, p); captured != frames || missed != 0 {
		t.Errorf("%d captured, %d missed", captured, missed)
	}
	untilFast()
	other.signal(t, syscall.SIGINT)
	captureCounts(t, other)
}

// TestCaptureErrors runs captures with invalid arguments, and one without a running instance.
func TestCaptureErrors(t *testing.T) {
	w := startMute(t, onePort)
	for want, arguments := range map[string][]string{
		`no rule "none"`:             {"--rule", "none"},
		"is not a drop reason":       {"--reason", "none"},
		"exclude each other":         {"--dropped", "--forwarded"},
		"-1 is not a count":          {"-c", "-1"},
		"--config and --socket both": {"--socket", "x"},
		"can use stdout":             {"-w", "-", "--json"},
	} {
		p := launch(t, w.Middle, nil, append([]string{"capture", "--config", w.file}, arguments...)...)
		if code := p.wait(t); code != 2 || !strings.Contains(p.stderr.String(), want) {
			t.Errorf("%q: exit code %d: %s", arguments, code, p.stderr.String())
		}
	}
	file := filepath.Join(t.TempDir(), "none.pcapng")
	p := launch(t, w.Middle, nil, "capture", "--socket", file+".sock", "-w", file)
	if code := p.wait(t); code != 1 || !strings.Contains(p.stderr.String(), "is fragwall running?") {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	if found, _ := filepath.Glob(file); found != nil {
		t.Error("capture created the file although there is no instance")
	}
}
