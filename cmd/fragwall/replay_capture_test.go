package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/tun/capture"
)

// openPolicy accepts everything.
const openPolicy = "[inside]\ntap = \"in\"\n[outside]\ntap = \"out\"\n[policy]\ndefault = \"accept\"\n[fragments]\n"

// TestReplayCaptures replays the captures in the testdata of package capture. Each of them has
// one peculiarity.
func TestReplayCaptures(t *testing.T) {
	captures, err := filepath.Abs("../../tun/capture/testdata")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, c := range []struct{ file, args, fragments, want string }{
		{"trailer_1518.pcap", "", "", "in 2 forwarded 2 dropped 0 bytes from inside forwarded 3032"},
		{"trailer_1518.pcap", "", `mode = "validate"`, "in 2 forwarded 2 dropped 0"},
		{"dup_first_longer_headers.pcap", "", "", "dropped 3 fragment_duplicate 1 fragment_shutdown 2"},
		{"dup_first_longer_headers.pcap", "", `mode = "validate"`, "forwarded 2 dropped 1 fragment_duplicate 1"},
		{"offload_on_sender.pcap", "", "", "dropped 3 ipv4_checksum 1 exceeds_mtu 2"},
		{"offload_on_sender.pcap", "", "", "2 frames dropped with a checksum or length of 0"},
		{"offload_on_sender.pcap", "--offloads", "", "in 3 forwarded 3 dropped 0"},
		{"caplen_over_len.pcap", "", "", "in 3 forwarded 3 dropped 0"},
		{"pcap_version_2_1.pcap", "", "", "in 1 forwarded 1 dropped 0"},
		{"time_2107.pcapng", "", "", "in 1 forwarded 1 dropped 0"},
		{"time_2107.pcapng", "", "", "1 frame later than 2106-02-07"},
		{"time_backwards.pcap", "", "", "in 3 forwarded 3 dropped 0"},
		{"whole_counts.pcap", "", "", "in 2 forwarded 2 dropped 0 bytes from inside forwarded 116 dropped 0"},
		{"whole_counts.pcap", "", `emit = "whole"`, "in 2 forwarded 2 sent as 1 dropped 0 bytes from inside forwarded 116 sent as 82 dropped 0"},
	} {
		writeFile(t, "policy.toml", openPolicy+c.fragments)
		args := strings.Fields("replay -c policy.toml --from inside -o out " + c.args)
		code, stdout, stderr := run(append(args, filepath.Join(captures, c.file))...)
		if got := strings.Join(strings.Fields(stdout), " "); code != 0 || stderr != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s %s %s: exit code %d, %s\nwant %s\n%s", c.file, c.args, c.fragments, code, stderr, c.want, stdout)
		}
	}
}

// TestReplayOffloads replays frames as the sender passed them to its NIC. It expects the frames
// that the NIC would have sent, with no other change.
func TestReplayOffloads(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "policy.toml", openPolicy)
	zeroed := func(frame []byte, at ...int) []byte {
		frame = slices.Clone(frame)
		for _, i := range at {
			frame[i], frame[i+1] = 0, 0
		}
		return frame
	}
	long := func(d packettest.Datagram) packettest.Datagram {
		d.Payload = append(d.Payload, packettest.Body(3000)...)
		return d
	}
	tcp4, tcp6 := packettest.TCP(client4, server4, 16), packettest.TCP(client6, server6, 16)
	tagged := tcp4
	tagged.Tags = []packet.Tag{{TPID: 0x8100, TCI: 10}}
	udp4 := packettest.UDP(client4, server4, packettest.Body(3000))
	none := packettest.Datagram{Src: client6.Addr(), Dst: server6.Addr(), Protocol: 59}
	padded := append(tcp4.Frame(), 1, 2, 3, 4, 5, 6)
	esp := packettest.Datagram{Src: client4.Addr(), Dst: server4.Addr(), Protocol: packet.ProtocolESP, Payload: packettest.Body(3000)}
	wrong := tcp4.Frame()
	wrong[24] ^= 1
	for name, c := range map[string]struct{ came, want []byte }{
		"checksum":                  {zeroed(tcp4.Frame(), 24), tcp4.Frame()},
		"checksum and padding":      {zeroed(padded, 24), padded},
		"length":                    {zeroed(tcp4.Frame(), 16), tcp4.Frame()},
		"length and checksum":       {zeroed(tcp4.Frame(), 16, 24), tcp4.Frame()},
		"behind a tag":              {zeroed(tagged.Frame(), 20, 28), tagged.Frame()},
		"segments of TCP":           {zeroed(long(tcp4).Frame(), 16, 24), long(tcp4).Frame()},
		"segments of IPv6":          {zeroed(long(tcp6).Frame(), 18), long(tcp6).Frame()},
		"segments of UDP":           {udp4.Frame(), udp4.Frame()},
		"no payload":                {none.Frame(), none.Frame()},
		"wrong checksum":            {wrong, nil},
		"long without segmentation": {esp.Frame(), nil},
	} {
		writePcap(t, "in", true, slices.Values([]capture.Frame{{Data: c.came, Length: len(c.came), Time: began}}))
		code, _, stderr := run(strings.Fields("replay -c policy.toml --from inside --offloads -o out in")...)
		out, err := os.Open("out")
		if code != 0 || err != nil {
			t.Fatal(name, code, stderr, err)
		}
		left, _ := readFrames(t, out)
		out.Close()
		switch {
		case c.want == nil && len(left) > 0:
			t.Errorf("%s: the frame was forwarded", name)
		case c.want != nil && (len(left) != 1 || !bytes.Equal(left[0].Data, c.want)):
			t.Errorf("%s: %d frames were forwarded, or not the expected one", name, len(left))
		}
	}
}

// writeBothNICs writes a capture of both NICs of a box that forwards a query and its answer.
// directions says whether frames have a direction (epb_flags).
func writeBothNICs(t *testing.T, name string, directions bool) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	described := pcapgo.NgInterface{Name: "nic", LinkType: layers.LinkTypeEthernet}
	w, err := pcapgo.NewNgWriterInterface(file, described, pcapgo.DefaultNgWriterOptions)
	if err == nil {
		_, err = w.AddInterface(described)
	}
	if err != nil {
		t.Fatal(err)
	}
	question, answer := frames()[0].Data, packettest.UDP(server4, client4, packettest.Body(100)).Frame()
	for i, f := range []struct {
		data      []byte
		nic       int
		direction pcapgo.NgEpbFlag
	}{
		{question, 0, pcapgo.NgEpbFlagDirectionInbound}, {question, 1, pcapgo.NgEpbFlagDirectionOutbound},
		{answer, 1, pcapgo.NgEpbFlagDirectionInbound}, {answer, 0, pcapgo.NgEpbFlagDirectionOutbound},
	} {
		options := pcapgo.NgPacketOptions{}
		if directions {
			options.Flags = &pcapgo.NgEpbFlags{Direction: f.direction}
		}
		info := gopacket.CaptureInfo{Timestamp: began.Add(time.Duration(i) * time.Millisecond), CaptureLength: len(f.data), Length: len(f.data), InterfaceIndex: f.nic}
		if err := w.WritePacketWithOptions(info, f.data, options); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestReplayBothNICs replays a capture that has each frame twice, from both NICs.
func TestReplayBothNICs(t *testing.T) {
	inDir(t)
	const mapped = "--inside-interface 0 --outside-interface 1"
	for _, c := range []struct {
		directions bool
		args, want string
	}{
		{true, mapped, "both: 2 frames in 0.002000 s of capture 2 outbound frames skipped frames from inside from outside in 1 1 forwarded 1 1"},
		{true, "--inside-interface 0", "both: 1 frame in 0.000000 s of capture 2 frames of other interfaces skipped 1 outbound frame skipped"},
		{true, "--from inside", "both: 4 frames in 0.003000 s of capture 2 frames marked as outbound and 2 as inbound, but all replayed"},
		{false, mapped, "both: 4 frames in 0.003000 s of capture 2 frames from the other side repeated within a second"},
	} {
		writeBothNICs(t, "both", c.directions)
		code, stdout, stderr := run(strings.Fields("replay -c policy.toml -o out both " + c.args)...)
		if got := strings.Join(strings.Fields(stdout), " "); code != 0 || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: exit code %d, %s\n%s", c.args, code, stderr, stdout)
		}
	}
}
