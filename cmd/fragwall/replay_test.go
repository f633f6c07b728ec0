package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"

	"fragwall/cmd/fragwall/internal/golden"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// began is the time of the first frame in the captures of the tests.
var began = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// writeCapture writes frames as a pcapng. Interface 0 is the inside, interface 1 the outside.
func writeCapture(t testing.TB, path string, arrivals []packettest.Arrival) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := capture.NewPcapng(file, "test", "inside", "outside")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range arrivals {
		err = errors.Join(err, w.Write(capture.Frame{
			Data: a.Data, Length: len(a.Data), Time: began.Add(a.At), Interface: int(a.From),
		}))
	}
	if err := errors.Join(err, w.Flush(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// run runs the command line and returns its exit code and output.
func run(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = execute(args, &out, &err)
	return code, out.String(), err.String()
}

// listCapture returns one line per frame of a capture: time, interface, length, checksum and
// comments.
func listCapture(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	eachCaptured(t, path, func(r *pcapgo.NgReader, data []byte, info gopacket.CaptureInfo, comments []string) {
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%14v %-7s %4d bytes %08x", info.Timestamp.Sub(began), i.Name, info.Length, crc32.ChecksumIEEE(data))
		for _, c := range comments {
			fmt.Fprintf(&b, " # %s", c)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

// eachCaptured calls f for each frame of a pcapng.
func eachCaptured(t testing.TB, path string, f func(r *pcapgo.NgReader, data []byte, info gopacket.CaptureInfo, comments []string)) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		f(r, data, info, options.Comments)
	}
}

// replayModes are the fragment modes that the golden files cover, with their [fragments] keys.
var replayModes = map[string]string{
	"reassemble":        `mode = "reassemble"`,
	"whole":             "mode = \"reassemble\"\nemit = \"whole\"",
	"validate":          `mode = "validate"`,
	"first-accept-rest": `mode = "first-accept-rest"`,
	"first-drop-rest":   `mode = "first-drop-rest"`,
	"drop":              `mode = "drop"`,
}

// replayPolicy is the policy of the golden files, up to the [fragments] keys.
const replayPolicy = `
[inside]
tap = "in"
[outside]
tap = "out"
[[rule]]
name = "dns"
action = "accept"
protocol = "udp"
dst_port = 53
[[rule]]
name = "answers"
protocol = "udp"
action = "accept"
from = "outside"
src_port = 53
[[rule]]
name = "telnet"
action = "drop"
protocol = "tcp"
dst_port = 23
[[rule]]
name = "never"
action = "accept"
protocol = "esp"
[fragments]
`

// TestReplayGolden replays every case in every mode, and compares all outputs with golden
// files.
func TestReplayGolden(t *testing.T) {
	for name, arrivals := range replayCases() {
		for mode, fragments := range replayModes {
			t.Run(name+"/"+mode, func(t *testing.T) {
				dir := t.TempDir()
				path := func(name string) string { return filepath.Join(dir, name) }
				writeFile(t, path("policy.toml"), replayPolicy+fragments)
				writeCapture(t, path("in"), arrivals)
				code, verdicts, summary := run("replay", "-c", path("policy.toml"), "--inside-interface=0", "--outside-interface=1",
					"-o", path("out"), "--dropped", path("dropped"), "--json", path("in"))
				if code != 0 {
					t.Fatalf("exit code %d: %s", code, summary)
				}
				checkVerdicts(t, verdicts, len(arrivals))
				golden.Compare(t, "replay/"+name+"."+mode+".txt", strings.ReplaceAll(summary, dir+"/", "")+
					"\nleft:\n"+listCapture(t, path("out"))+
					"\ndropped:\n"+listCapture(t, path("dropped"))+
					"\nverdicts:\n"+verdicts)
			})
		}
	}
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkVerdicts checks that all lines are valid JSON, and that they count each frame once.
func checkVerdicts(t *testing.T, lines string, frames int) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var v struct{ Fragments int }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		frames -= max(v.Fragments, 1)
	}
	if frames != 0 {
		t.Errorf("%d frames have no verdict", frames)
	}
}

// Hosts in the cases.
var (
	client4 = netip.AddrPortFrom(packettest.InsideIPv4, 40000)
	server4 = netip.AddrPortFrom(packettest.OutsideIPv4, 53)
	client6 = netip.AddrPortFrom(packettest.InsideIPv6, 40000)
	server6 = netip.AddrPortFrom(packettest.OutsideIPv6, 53)
)

// numbered returns a UDP datagram with an identification and VLAN tags.
func numbered(src, dst netip.AddrPort, size int, id uint32, tags ...packet.Tag) packettest.Datagram {
	d := packettest.UDP(src, dst, packettest.Body(size))
	d.ID, d.Tags = id, tags
	return d
}

func port(a netip.AddrPort, port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), port) }

// replayCases returns captures by name.
func replayCases() map[string][]packettest.Arrival {
	const in, out = verdict.Inside, verdict.Outside
	cases := map[string][]packettest.Arrival{}
	add := func(name string, after time.Duration, from verdict.Side, frames ...[]byte) {
		cases[name] = append(cases[name], packettest.Arrivals(after, from, frames...)...)
	}
	reversed := func(frames [][]byte) [][]byte {
		var r [][]byte
		for _, f := range frames {
			r = append([][]byte{f}, r...)
		}
		return r
	}

	padded := append(packettest.UDP(client4, server4, nil).Frame(), 0, 0, 0, 0)
	add("whole", 0, in, padded, packettest.UDP(client6, server6, packettest.Body(100)).Frame())
	add("whole", time.Millisecond, out, packettest.UDP(server4, client4, packettest.Body(900)).Frame())
	add("whole", 2*time.Millisecond, in,
		packettest.TCP(client4, port(server4, 23), 2).Frame(),
		packettest.TCP(client4, port(server4, 80), 2).Frame(),
		packettest.UDP(client4, server4, packettest.Body(1473)).Frame(),
		packettest.Datagram{}.Ethernet(0x0806, make([]byte, 28)),
		packettest.Datagram{}.Ethernet(0x88cc, make([]byte, 46)),
		packettest.Datagram{Src: client6.Addr(), Dst: server6.Addr(), Protocol: packet.ProtocolICMPv6, TTL: 255,
			Payload: append([]byte{135, 0}, make([]byte, 22)...)}.Frame(),
		padded[:20], padded[:13])

	queries, answers := numbered(client4, server4, 3000, 1), numbered(server6, client6, 3000, 2, packet.Tag{TPID: 0x8100, TCI: 10})
	add("fragments", 0, in, queries.Fragments(1480)...)
	add("fragments", time.Millisecond, out, reversed(answers.Fragments(1448))...)
	denied := numbered(client4, port(server4, 54), 3000, 3)
	add("fragments", 2*time.Millisecond, in, denied.Fragments(1480)...)
	add("fragments", 3*time.Millisecond, in, packettest.TCP(client4, port(server4, 23), 2).Fragments(8)...)
	add("fragments", 4*time.Millisecond, out, denied.Fragments(1480)[1])

	overlapped := numbered(client4, server4, 3000, 4)
	whole := overlapped.Fragmentable()
	add("attacks", 0, in, overlapped.Fragment(0, whole[:1480], true), overlapped.Fragment(1472, whole[1472:2952], true),
		overlapped.Fragment(2952, whole[2952:], false), overlapped.Fragment(1480, whole[1480:2952], true))
	doubled := numbered(client6, server6, 2000, 5).Fragments(1448)
	add("attacks", time.Millisecond, in, doubled[0], doubled[0], doubled[1])
	rewritten := numbered(client4, server4, 2000, 6)
	add("attacks", 2*time.Millisecond, in, rewritten.Fragments(1448)[0], numbered(client4, port(server4, 23), 2000, 6).Fragments(1448)[0])
	ends := numbered(client6, server6, 2000, 7)
	add("attacks", 3*time.Millisecond, in, ends.Fragment(1448, whole[:80], false), ends.Fragment(1448, whole[:160], false))
	add("attacks", 4*time.Millisecond, in, ends.Fragment(8, whole[:12], true), ends.Fragment(65528, whole[:100], false))

	late := numbered(client4, server4, 2000, 8).Fragments(1480)
	add("time", 0, in, late[0])
	add("time", 10*time.Second, out, numbered(server6, client6, 2000, 9).Fragments(1448)[1])
	add("time", 30*time.Second, in, late[1])
	add("time", 29*time.Second, in, packettest.UDP(client4, server4, nil).Frame())
	add("time", 2*time.Minute, in, numbered(client6, server6, 2000, 10).Fragments(1448)[0])
	return cases
}
