package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/capture"
)

// inDir changes to a temporary directory with a policy and captures. in.pcap has two frames.
// The policy accepts the first.
func inDir(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	writeFile(t, "policy.toml", replayPolicy)
	writeFile(t, "empty.pcap", "")
	writePcap(t, "in.pcap", true, slices.Values(frames()))
	whole, err := os.ReadFile("in.pcap")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "truncated.pcap", string(whole[:len(whole)-10]))
	writeFile(t, "header.pcap", string(whole[:24]))
	writeFile(t, "cooked.pcap", string(append(slices.Clone(whole[:20]), 113, 0, 0, 0)))
	writeCapture(t, "both.pcapng", []packettest.Arrival{
		{From: verdict.Inside, Data: frames()[0].Data},
		{From: verdict.Outside, Data: packettest.UDP(server4, client4, nil).Frame()},
	})
}

// frames returns a DNS query and a datagram that the policy denies, one second apart.
func frames() []capture.Frame {
	var f []capture.Frame
	for i, data := range [][]byte{
		packettest.UDP(client4, server4, packettest.Body(100)).Frame(),
		packettest.UDP(client4, port(server4, 54), nil).Frame(),
	} {
		f = append(f, capture.Frame{Data: data, Length: len(data), Time: began.Add(time.Duration(i) * time.Second)})
	}
	return f
}

func writePcap(t testing.TB, name string, nanoseconds bool, frames iter.Seq[capture.Frame]) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := capture.NewPcap(file, nanoseconds)
	for f := range frames {
		if err == nil {
			err = w.Write(f)
		}
	}
	if err := errors.Join(err, w.Flush(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// readFrames returns all frames of a capture.
func readFrames(t testing.TB, from io.Reader) (frames []capture.Frame, nanoseconds bool) {
	t.Helper()
	r, err := capture.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.Read()
		if errors.Is(err, io.EOF) {
			return frames, r.Nanoseconds()
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Data = slices.Clone(f.Data)
		frames = append(frames, f)
	}
}

// TestReplayRefuses checks the exact errors of replays that cannot start, and that they leave
// no output.
func TestReplayRefuses(t *testing.T) {
	const help = `; see "fragwall replay --help"`
	for name, c := range map[string]struct {
		args string
		code int
		want string
	}{
		"no side":                {"-o out in.pcap", 2, "the side of the frames is missing: add --from inside or --from outside" + help},
		"unknown side":           {"--from left -o out in.pcap", 2, `--from "left": want inside or outside` + help},
		"side and mapping":       {"--from inside --inside-interface 0 -o out both.pcapng", 2, "--from applies to all frames: use either --from or the interface flags" + help},
		"same interface":         {"--inside-interface 1 --outside-interface 1 -o out both.pcapng", 2, "interface 1 cannot be on both sides" + help},
		"negative":               {"--inside-interface -1 -o out both.pcapng", 2, "--inside-interface -1: interfaces are counted from 0" + help},
		"no output":              {"--from inside in.pcap", 2, "no output given; add -o OUT.pcap" + help},
		"no input":               {"--from inside -o out", 2, "accepts 1 arg(s), received 0" + help},
		"stdout for both":        {"--from inside -o - --json in.pcap", 2, "only one of -o, --dropped and --json can use stdout" + help},
		"two captures on stdout": {"--from inside -o - --dropped - in.pcap", 2, "only one of -o, --dropped and --json can use stdout" + help},
		"over the input":         {"--from inside -o ./in.pcap in.pcap", 2, `output "./in.pcap" is the input; write to another file`},
		"over a link":            {"--from inside -o out --dropped link in.pcap", 2, `output "link" is the input; write to another file`},
		"over the policy":        {"--from inside -o policy.toml in.pcap", 2, `output "policy.toml" is the configuration; write to another file`},
		"one output":             {"--from inside -o new --dropped ./new in.pcap", 2, `-o and --dropped are both "./new"; write to two files`},
		"one old output":         {"--from inside -o empty.pcap --dropped ./empty.pcap in.pcap", 2, `-o and --dropped are both "./empty.pcap"; write to two files`},
		"missing":                {"--from inside -o out no.pcap", 1, `open "no.pcap": no such file or directory`},
		"a directory":            {"--from inside -o out .", 1, `open ".": is a directory`},
		"empty":                  {"--from inside -o out empty.pcap", 1, `read "empty.pcap": the file is empty`},
		"not a capture":          {"--from inside -o out policy.toml", 1, `read "policy.toml": neither pcap nor pcapng: it starts with 0x0a5b696e`},
		"not Ethernet":           {"--from inside -o out cooked.pcap", 1, `read "cooked.pcap": link type LINUX_SLL (113): want Ethernet`},
		"output directory":       {"--from inside -o no/out in.pcap", 1, `create "no/out": no such file or directory`},
		"dropped directory":      {"--from inside -o /dev/null --dropped . in.pcap", 1, `create ".": is a directory`},
	} {
		t.Run(name, func(t *testing.T) {
			inDir(t)
			if err := os.Symlink("in.pcap", "link"); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile("in.pcap")
			code, stdout, stderr := run(append([]string{"replay", "-c", "policy.toml"}, strings.Fields(c.args)...)...)
			if code != c.code || stdout != "" || stderr != "fragwall: "+c.want+"\n" {
				t.Errorf("exit code %d, stdout %q, stderr\n%swant %d and\nfragwall: %s", code, stdout, stderr, c.code, c.want)
			}
			if _, err := os.Stat("out"); err == nil {
				t.Error("an output was created")
			}
			if after, _ := os.ReadFile("in.pcap"); !bytes.Equal(before, after) {
				t.Error("the input was changed")
			}
		})
	}
}

// TestReplayOfBrokenInput checks that the frames before the damage are replayed, and that the
// damage is reported.
func TestReplayOfBrokenInput(t *testing.T) {
	inDir(t)
	code, stdout, stderr := run("replay", "-c", "policy.toml", "--from", "inside", "-o", "out", "truncated.pcap")
	if code != 1 || stderr != "fragwall: read \"truncated.pcap\": the capture is truncated after frame 1\n" ||
		!strings.HasPrefix(stdout, "truncated.pcap: 1 frame in 0.000000 s of capture\n") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	out, err := os.Open("out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if left, _ := readFrames(t, out); len(left) != 1 || !bytes.Equal(left[0].Data, frames()[0].Data) {
		t.Errorf("%d frames were forwarded", len(left))
	}

	code, _, stderr = run("replay", "-c", "policy.toml", "--outside-interface", "2", "-o", "out", "both.pcapng")
	if code != 1 || stderr != "fragwall: read \"both.pcapng\": --outside-interface 2: the capture has 2 interfaces, counted from 0\n" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestReplayOfNoFrames(t *testing.T) {
	inDir(t)
	code, stdout, stderr := run("replay", "-c", "policy.toml", "--from", "inside", "-o", "out", "header.pcap")
	if code != 0 || stderr != "" || !strings.HasPrefix(stdout, "header.pcap: 0 frames in 0.000000 s of capture\n") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	if out, err := os.ReadFile("out"); err != nil || len(out) != 24 {
		t.Errorf("%d bytes, %v; want only a header", len(out), err)
	}
}

// TestReplayCutFrames replays a frame that the snap length cut. It is dropped, although the
// headers that the policy needs are complete.
func TestReplayCutFrames(t *testing.T) {
	inDir(t)
	cut := frames()[0]
	cut.Data = cut.Data[:60]
	writePcap(t, "cut.pcap", false, slices.Values([]capture.Frame{cut}))
	code, stdout, stderr := run("replay", "-c", "policy.toml", "--from", "inside", "-o", "out", "--dropped", "dropped", "cut.pcap")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "\n    snap_length                              1\n") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	if got := listCapture(t, "dropped"); !strings.Contains(got, "inside   142 bytes") || !strings.HasSuffix(got, "# snap_length\n") {
		t.Errorf("%s", got)
	}
}

// TestReplayTimes checks that timestamps of the output have the precision of the input's
// format.
func TestReplayTimes(t *testing.T) {
	inDir(t)
	writePcap(t, "micro.pcap", false, slices.Values(frames()))
	writeCapture(t, "ng", []packettest.Arrival{{From: verdict.Inside, Data: frames()[0].Data}})
	for _, c := range []struct {
		name        string
		nanoseconds bool
	}{{"in.pcap", true}, {"micro.pcap", false}, {"ng", true}} {
		code, _, stderr := run("replay", "-c", "policy.toml", "--from", "inside", "-o", "out", c.name)
		out, err := os.Open("out")
		if code != 0 || err != nil {
			t.Fatal(code, stderr, err)
		}
		want := began
		if !c.nanoseconds {
			want = began.Truncate(time.Microsecond)
		}
		left, nanoseconds := readFrames(t, out)
		out.Close()
		if len(left) != 1 || !left[0].Time.Equal(want) || nanoseconds != c.nanoseconds {
			t.Errorf("%s: %v, nanoseconds %v", c.name, left, nanoseconds)
		}
	}
}

// TestReplayOverPipes replays a big-endian capture from stdin to stdout. The summary then goes
// to stderr.
func TestReplayOverPipes(t *testing.T) {
	inDir(t)
	in := binary.BigEndian.AppendUint32(nil, 0xa1b2c3d4)
	in = append(in, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1)
	for _, f := range frames() {
		in = binary.BigEndian.AppendUint32(in, uint32(f.Time.Unix()))
		in = binary.BigEndian.AppendUint32(in, uint32(f.Time.Nanosecond()/1000))
		in = binary.BigEndian.AppendUint32(in, uint32(len(f.Data)))
		in = binary.BigEndian.AppendUint32(in, uint32(len(f.Data)))
		in = append(in, f.Data...)
	}
	var stdout, stderr bytes.Buffer
	root := newRootCommand()
	root.SetArgs([]string{"replay", "-c", "policy.toml", "--from", "inside", "-o", "-", "-"})
	root.SetIn(bytes.NewReader(in))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	left, _ := readFrames(t, &stdout)
	if len(left) != 1 || !bytes.Equal(left[0].Data, frames()[0].Data) {
		t.Errorf("%d frames were forwarded", len(left))
	}
	if !strings.HasPrefix(stderr.String(), "stdin: 2 frames in 1.000000 s of capture\n") {
		t.Error(stderr.String())
	}
}

// TestReplayOneInterface maps one interface only. Frames of the other one are skipped.
func TestReplayOneInterface(t *testing.T) {
	inDir(t)
	code, stdout, stderr := run("replay", "-c", "policy.toml", "--outside-interface", "1", "-o", "out", "both.pcapng")
	if code != 0 || !strings.HasPrefix(stdout, "both.pcapng: 1 frame in 0.000000 s of capture\n1 frame of other interfaces skipped\n") ||
		!strings.Contains(stdout, "from outside\n") || strings.Contains(stdout, "from inside") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	out, err := os.Open("out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if left, _ := readFrames(t, out); len(left) != 1 {
		t.Errorf("%d frames were forwarded, want 1", len(left))
	}
}

// TestReplayOutputFails writes to a full device.
func TestReplayOutputFails(t *testing.T) {
	inDir(t)
	for _, args := range []string{"-o /dev/full", "-o out --dropped /dev/full"} {
		code, _, stderr := run(append(strings.Fields("replay -c policy.toml --from inside in.pcap "), strings.Fields(args)...)...)
		if code != 1 || stderr != "fragwall: write \"/dev/full\": no space left on device\n" {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
	}
}

// TestReplayInterrupted checks that an interrupted replay prints the summary of the frames
// before it.
func TestReplayInterrupted(t *testing.T) {
	inDir(t)
	whole, err := os.ReadFile("in.pcap")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	root := newRootCommand()
	root.SetArgs(strings.Fields("replay -c policy.toml --from inside -o out -"))
	root.SetIn(&interrupting{bytes.NewReader(whole), cancel})
	root.SetOut(&stdout)
	err = root.ExecuteContext(ctx)
	if err == nil || err.Error() != `read "stdin": interrupted after 0 frames` || !strings.HasPrefix(stdout.String(), "stdin: 0 frames ") {
		t.Errorf("%v\n%s", err, stdout.String())
	}
}

// interrupting is an input that calls interrupt at each read.
type interrupting struct {
	io.Reader
	interrupt func()
}

func (i *interrupting) Read(b []byte) (int, error) {
	i.interrupt()
	return i.Reader.Read(b)
}

// TestReplayRepeats replays a flood in which datagrams are evicted, expire, or are incomplete
// at the end. It checks that two runs have the same output, byte for byte.
func TestReplayRepeats(t *testing.T) {
	inDir(t)
	writeFile(t, "policy.toml", replayPolicy+"memory = \"32MiB\"\nmax_datagrams = 4096\ntimeout_ipv4 = \"10s\"\n")
	var arrivals []packettest.Arrival
	for i := range 12000 {
		src := client4
		if i%2 == 1 {
			src = client6
		}
		at := packettest.Arrivals(time.Duration(i)*5*time.Millisecond, verdict.Side(i%3/2), spoofed(i, src))
		arrivals = append(arrivals, at...)
	}
	writeCapture(t, "flood", arrivals)
	outputs := func() (all [][]byte) {
		code, verdicts, summary := run("replay", "-c", "policy.toml", "--inside-interface=0", "--outside-interface=1",
			"-o", "out", "--dropped", "dropped", "--json", "flood")
		if code != 0 {
			t.Fatal(summary)
		}
		for _, reason := range []string{"fragment_evicted", "fragment_timeout", "fragment_shutdown"} {
			if !strings.Contains(summary, reason) {
				t.Errorf("no drop with reason %s", reason)
			}
		}
		for _, name := range []string{"out", "dropped"} {
			b, err := os.ReadFile(filepath.Join(".", name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
		return append(all, []byte(verdicts), []byte(summary))
	}
	first := outputs()
	for i, b := range outputs() {
		if !bytes.Equal(b, first[i]) {
			t.Errorf("output %d differs between two runs", i)
		}
	}
}

// spoofed returns the i-th first fragment of a flood from many source prefixes.
func spoofed(i int, like netip.AddrPort) []byte {
	src := netip.AddrFrom4([4]byte{11, byte(i >> 4), byte(i * 31), 1})
	dst := server4
	if like.Addr().Is6() {
		b := like.Addr().As16()
		b[4], b[5] = byte(i>>4), byte(i*31)
		src, dst = netip.AddrFrom16(b), server6
	}
	return numbered(netip.AddrPortFrom(src, 7), dst, 1600, uint32(i)).Fragments(1000)[0]
}
