package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"

	"fragwall/cmd/fragwall/internal/golden"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

const replayDocs = "../../docs/replay"

// docsCapture returns the frames of the capture in docs/replay.md.
func docsCapture() []packettest.Arrival {
	const in, out = verdict.Inside, verdict.Outside
	server := netip.MustParseAddrPort("10.0.0.53:53")
	client := netip.MustParseAddrPort("192.0.2.7:40000")
	scanner := netip.MustParseAddrPort("198.51.100.9:50000")
	far := netip.MustParseAddrPort("203.0.113.80:40001")

	question := numbered(scanner, server, 1592, 2)
	whole := question.Fragmentable()
	shell := packettest.UDP(scanner, netip.AddrPortFrom(server.Addr(), 22), nil).Payload
	cases := packettest.Arrivals(0, out, packettest.UDP(client, server, packettest.Body(40)).Frame())
	for _, a := range [][]packettest.Arrival{
		packettest.Arrivals(3*time.Millisecond, in, numbered(server, client, 3000, 1).Fragments(1480)...),
		packettest.Arrivals(2*time.Second, out, packettest.TCP(scanner, netip.AddrPortFrom(server.Addr(), 22), 2).Frame()),
		packettest.Arrivals(4*time.Second, out,
			question.Fragment(0, whole[:800], true), question.Fragment(0, shell, true), question.Fragment(800, whole[800:], false)),
		packettest.Arrivals(5*time.Second, out, numbered(far, server, 2000, 3).Fragments(1480)[0]),
		packettest.Arrivals(40*time.Second, out, packettest.UDP(client, server, packettest.Body(40)).Frame()),
		packettest.Arrivals(40*time.Second+2*time.Millisecond, in, packettest.UDP(server, client, packettest.Body(400)).Frame()),
	} {
		cases = append(cases, a...)
	}
	return cases
}

// TestReplayDocs checks that the commands in docs/replay.md print what it shows.
func TestReplayDocs(t *testing.T) {
	path, err := filepath.Abs(replayDocs)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(path + "/policy.toml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path + ".md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	writeFile(t, "policy.toml", string(policy))
	writeCapture(t, "capture.pcapng", docsCapture())
	made, err := os.ReadFile("capture.pcapng")
	if err != nil {
		t.Fatal(err)
	}

	var got strings.Builder
	fence := ""
	for line := range strings.Lines(string(page)) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case fence == "" || line == "```\n":
			got.WriteString(line)
		case isCommand && fence == "```console":
			got.WriteString(line)
			got.WriteString(documented(t, strings.TrimSpace(command)))
		}
		if strings.HasPrefix(line, "```") {
			fence = strings.TrimSpace(line)
			if fence == "```toml" {
				got.Write(policy)
			}
			if fence == "```" {
				fence = ""
			}
		}
	}
	if *golden.Update {
		writeFile(t, path+".md", got.String())
		writeFile(t, path+"/capture.pcapng", string(made))
		return
	}
	if got.String() != string(page) {
		t.Errorf("docs/replay.md is stale (go test -update rewrites it); it should be\n%s", got.String())
	}
	if kept, err := os.ReadFile(path + "/capture.pcapng"); err != nil || !bytes.Equal(kept, made) {
		t.Errorf("docs/replay/capture.pcapng is stale (go test -update rewrites it): %v", err)
	}
}

// documented returns the output of a command in docs/replay.md.
func documented(t *testing.T, command string) string {
	t.Helper()
	line, quiet := strings.CutSuffix(command, " 2>/dev/null")
	if path, ok := strings.CutPrefix(line, "tshark -r "); ok {
		path, fields, _ := strings.Cut(path, " ")
		if fields != dissectedFields {
			t.Fatalf("%s: the test does not support these fields", command)
		}
		return dissected(t, path)
	}
	args := strings.Fields(line)
	if args[0] != "fragwall" {
		t.Fatalf("%s: the test does not support this program", command)
	}
	code, stdout, stderr := run(args[1:]...)
	if code != 0 {
		t.Errorf("%s: exit code %d: %s", command, code, stderr)
	}
	if quiet {
		stderr = ""
	}
	return stdout + stderr
}

// dissectedFields are the arguments of tshark for which [dissected] prints the same fields.
const dissectedFields = "-T fields -e frame.time_relative -e ip.src -e frame.comment"

// dissected prints the fields of an IPv4 capture as tshark does, so that the test does not need
// tshark.
func dissected(t *testing.T, path string) string {
	t.Helper()
	var b strings.Builder
	var first time.Time
	eachCaptured(t, path, func(_ *pcapgo.NgReader, data []byte, info gopacket.CaptureInfo, comments []string) {
		if first.IsZero() {
			first = info.Timestamp
		}
		since := info.Timestamp.Sub(first)
		src, _ := netip.AddrFromSlice(data[26:30])
		fmt.Fprintf(&b, "%d.%09d\t%s\t%s\n", since/time.Second, since%time.Second, src, strings.Join(comments, ","))
	})
	return b.String()
}
