package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// outward accepts new flows from the inside only.
const outward = `
[policy]
default = "drop"
stateful = true
[[rule]]
name = "out"
action = "accept"
from = "inside"
`

// listed is a flow in a list: its state, with UNREPLIED or ASSURED, and the number of packets and bytes
// in each direction.
type listed struct {
	state                string
	packets, bytes       uint64
	replyPkts, replyByte uint64
}

// kernelFlows returns the flows that the kernel of a host tracks, by protocol, hosts and ports.
func kernelFlows(ns *lab.Namespace) (flows map[string]listed, err error) {
	flows = make(map[string]listed)
	for _, family := range []string{"ipv4", "ipv6"} {
		var output []byte
		err := ns.Do(func() (err error) {
			output, err = exec.Command("conntrack", "-L", "-f", family).Output()
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("conntrack: %w", err)
		}
		for line := range strings.Lines(string(output)) {
			words := strings.Fields(line)
			fields := make(map[string][]string)
			state, marks := "", ""
			for i, word := range words {
				name, value, isField := strings.Cut(word, "=")
				switch {
				case isField:
					fields[name] = append(fields[name], value)
				case strings.HasPrefix(word, "["):
					marks += "," + strings.Trim(word, "[]")
				case i == 3:
					state = word
				}
			}
			number := func(name string, i int) uint64 {
				n, _ := strconv.ParseUint(fields[name][i], 10, 64)
				return n
			}
			ports := "id " + strings.Join(fields["id"][:min(1, len(fields["id"]))], "")
			if len(fields["sport"]) > 0 {
				ports = fields["sport"][0] + ">" + fields["dport"][0]
			}
			src, dst := netip.MustParseAddr(fields["src"][0]), netip.MustParseAddr(fields["dst"][0])
			key := fmt.Sprintf("%s %v>%v %s", words[0], src, dst, ports)
			if key = strings.Replace(key, "icmpv6", "icmp6", 1); !strings.HasPrefix(key, "icmp6") || fields["type"][0] == "128" {
				flows[key] = listed{strings.Trim(state+marks, ","), number("packets", 0), number("bytes", 0), number("packets", 1), number("bytes", 1)}
			}
		}
	}
	return flows, nil
}

// boxFlows returns the flows that the program lists, in the format of kernelFlows.
func (b *box) boxFlows(t *testing.T) map[string]listed {
	t.Helper()
	p := launch(t, b.Middle, nil, "flows", "-c", b.file, "--json")
	if code := p.wait(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr.String())
	}
	flows := make(map[string]listed)
	for line := range strings.Lines(p.stdout.String()) {
		var f struct {
			Protocol, Src, Dst, State, Rule string
			SrcPort                         *int `json:"sport"`
			DstPort                         *int `json:"dport"`
			ID                              *int `json:"icmp_id"`
			Replied, Assured                bool
			Packets                         uint64 `json:"original_packets"`
			Bytes                           uint64 `json:"original_bytes"`
			ReplyPackets                    uint64 `json:"reply_packets"`
			ReplyBytes                      uint64 `json:"reply_bytes"`
		}
		must(t, json.Unmarshal([]byte(line), &f))
		if f.Rule != "out" {
			t.Errorf("flow of rule %q, want \"out\": %s", f.Rule, line)
		}
		ports := ""
		if f.ID != nil {
			ports = fmt.Sprintf("id %d", *f.ID)
		} else {
			ports = fmt.Sprintf("%d>%d", *f.SrcPort, *f.DstPort)
		}
		// conntrack shows a state only for TCP, and no word for flows with replies that are not assured.
		state := ""
		if f.Protocol == "tcp" {
			state = f.State
		}
		switch {
		case !f.Replied:
			state += ",UNREPLIED"
		case f.Assured:
			state += ",ASSURED"
		}
		protocol := strings.Replace(f.Protocol, "icmpv6", "icmp6", 1)
		flows[fmt.Sprintf("%s %s>%s %s", protocol, f.Src, f.Dst, ports)] = listed{strings.Trim(state, ","), f.Packets, f.Bytes, f.ReplyPackets, f.ReplyBytes}
	}
	return flows
}

// tracks makes a host's kernel track and count the flows that the host begins.
func tracks(t *testing.T, h *lab.Host) {
	t.Helper()
	must(t, h.Do(func() error {
		if out, err := exec.Command("nft", "add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state new accept").CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return lab.Sysctl(map[string]string{"net/netfilter/nf_conntrack_acct": "1"})
	}))
}

// TestFlowsAgree exchanges traffic of several kinds, and compares the program's flows with
// those that the inside host's kernel tracks.
func TestFlowsAgree(t *testing.T) {
	n := newNetwork(t)
	tracks(t, n.Hosts[verdict.Inside])
	b := start(t, n, outward)
	inside, outside := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	want := 0
	for _, ipv6 := range []bool{false, true} {
		want += converse(t, inside, outside, ipv6)
	}
	eventually(t, func() error {
		kernel, err := kernelFlows(inside.Namespace)
		if err != nil {
			return err
		}
		maps.DeleteFunc(kernel, func(key string, _ listed) bool {
			return strings.Contains(key, "127.0.0.1") || strings.Contains(key, "::1>::1")
		})
		box := b.boxFlows(t)
		states := make(map[string]int)
		for key, k := range kernel {
			f, known := box[key]
			if strings.HasPrefix(k.state, "SYN_SENT") {
				f.packets, f.bytes = k.packets, k.bytes // the kernel does not count a retransmitted SYN
			}
			if !known || f != k {
				return fmt.Errorf("flow %s is %+v, but %+v in the kernel; all flows: %v", key, f, k, box)
			}
			states[k.state]++
		}
		if len(kernel) != len(box) || len(box) < want {
			return fmt.Errorf("%d flows, %d in the kernel; want at least %d: %v, %v", len(box), len(kernel), want, box, kernel)
		}
		for _, state := range []string{"ESTABLISHED,ASSURED", "TIME_WAIT,ASSURED", "CLOSE_WAIT,ASSURED", "SYN_SENT,UNREPLIED", "UNREPLIED", ""} {
			if states[state] < 2 {
				return fmt.Errorf("%d flows are in state %q, want at least 2", states[state], state)
			}
		}
		return nil
	})
}

// converse makes the inside host open four TCP connections: one stays open, one is half-closed, one is
// closed, and one is never answered. The host also sends UDP, with and without a reply, and pings. It
// returns the number of flows.
func converse(t *testing.T, inside, outside *lab.Host, ipv6 bool) (flows int) {
	t.Helper()
	l, err := outside.ListenTCP(ipv6, 0)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	to := l.Addr().(*net.TCPAddr).AddrPort()
	for _, end := range []string{"open", "half", "closed"} {
		c, err := inside.DialTCP(to, waitTimeout)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		s, err := l.Accept()
		must(t, err)
		t.Cleanup(func() { s.Close() })
		_, err = io.WriteString(c, "question")
		must(t, err)
		_, err = io.ReadFull(s, make([]byte, 8))
		must(t, err)
		if end != "open" {
			must(t, c.(*net.TCPConn).CloseWrite())
			_, err = io.Copy(io.Discard, s)
			must(t, err)
		}
		if end == "closed" {
			must(t, s.Close())
			_, err = io.Copy(io.Discard, c)
			must(t, err)
		}
	}
	nobody := netip.AddrPortFrom(outside.Addr(ipv6), 9)
	must(t, outside.Do(func() error { // the outside host must not answer on this port, not even with a RST
		out, err := exec.Command("nft", "add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i th dport 9 drop").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}))
	go func() {
		if c, err := inside.DialTCP(nobody, waitTimeout); err == nil {
			c.Close()
		}
	}()
	server, err := outside.ListenUDP(ipv6, 0)
	must(t, err)
	t.Cleanup(func() { server.Close() })
	for _, answered := range []bool{true, false} {
		client, err := inside.ListenUDP(ipv6, 0)
		must(t, err)
		t.Cleanup(func() { client.Close() })
		target := server.LocalAddr().(*net.UDPAddr).AddrPort()
		if !answered {
			target = nobody
		}
		_, err = client.WriteToUDPAddrPort(packettest.Body(100), target)
		must(t, err)
		if answered {
			_, from, err := server.ReadFromUDPAddrPort(make([]byte, 200))
			must(t, err)
			size := 3000 // in fragments, but not for IPv6: the box also counts the bytes of fragment headers
			if ipv6 {
				size = 1000
			}
			_, err = server.WriteToUDPAddrPort(packettest.Body(size), from)
			must(t, err)
			_, _, err = client.ReadFromUDPAddrPort(make([]byte, 4000))
			must(t, err)
		}
	}
	must(t, inside.Do(func() error { return exec.Command("ping", "-c", "2", "-i", "0.2", outside.Addr(ipv6).String()).Run() }))
	return 7
}

// TestFlowsEnd deletes the flow of a UDP exchange. After that, replies do not pass until there is
// another request.
func TestFlowsEnd(t *testing.T) {
	w := startMute(t, outward)
	f := families[0]
	question, answer := packettest.UDP(f.src, f.dst, packettest.Body(10)).Frame(), packettest.UDP(f.dst, f.src, packettest.Body(20)).Frame()
	exchange := func() {
		t.Helper()
		w.send(t, verdict.Inside, question)
		expectFrames(t, w.sockets[verdict.Outside], question)
		w.send(t, verdict.Outside, answer)
		expectFrames(t, w.sockets[verdict.Inside], answer)
	}
	exchange()
	p := launch(t, w.Middle, nil, "flows", "-c", w.file, "--delete", "--proto", "udp", "--host", f.dst.Addr().String())
	if code := p.wait(t); code != 0 || p.stdout.String() != "1 flow deleted\n" {
		t.Errorf("exit code %d: %s%s", code, p.stdout.String(), p.stderr.String())
	}
	w.stderr.await(t, w.process, 0, `flows deleted.*flows=1.*uid=0 pid=[1-9]`)
	w.send(t, verdict.Outside, answer)
	w.awaitCounters(t, verdict.Outside, func(c counters) bool { return c.dropped["policy_default"] == 1 })
	exchange()
}

var controlSocket = regexp.MustCompile(`socket=(\S+)`)

// TestControlClientsLoseNoFrames checks that all frames pass while clients of the control socket do not read,
// send requests in a loop, or disconnect at once. The test waits for the arrival of each batch before
// it sends the next one.
func TestControlClientsLoseNoFrames(t *testing.T) {
	w := startMute(t, outward)
	f := families[0]
	const flows, rounds, round = 20_000, 200, 20
	var frames [][]byte
	for i := range flows {
		src := netip.AddrPortFrom(f.src.Addr(), uint16(10_000+i))
		frames = append(frames, packettest.UDP(src, f.dst, packettest.Body(10)).Frame())
	}
	sent := 0
	pass := func(some [][]byte) {
		t.Helper()
		w.send(t, verdict.Inside, some...)
		sent += len(some)
		for range some {
			if _, err := w.sockets[verdict.Outside].Receive(time.Now().Add(waitTimeout)); err != nil {
				t.Fatalf("not all of %d frames passed: %v", sent, err)
			}
		}
	}
	for i := 0; i < flows; i += round {
		pass(frames[i : i+round])
	}
	socket := controlSocket.FindStringSubmatch(w.stderr.String())[1]
	connect := func(request string) net.Conn {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_, err = io.WriteString(c, request+"\n")
		}
		if err != nil {
			t.Error(err)
		}
		return c
	}
	for range 4 {
		defer connect("flows {}").Close() // does not read
	}
	ended, done := make(chan struct{}), make(chan struct{})
	defer func() { close(done); <-ended }()
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				for _, request := range []string{"flows {}", `flows {"sort":"bytes","limit":10}`, "waiting {}", "count-flows {}", "file"} {
					c := connect(request)
					_, _ = c.Read(make([]byte, 100))
					_ = c.Close()
				}
			}
		}
	}()
	for i := range rounds {
		pass(frames[i*round : (i+1)*round])
	}
	p := launch(t, w.Middle, nil, "flows", "-c", w.file, "--count")
	if code := p.wait(t); code != 0 || p.stdout.String() != fmt.Sprintln(flows) {
		t.Errorf("exit code %d: %s%s", code, p.stdout.String(), p.stderr.String())
	}
	if c := w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.received == sent }); c.forwarded != sent {
		t.Errorf("%d frames were sent, but %+v", sent, c)
	}
	w.settle(t)
}

// TestWaitingList lists the incomplete datagrams of a running box, and asks it to explain a verdict.
func TestWaitingList(t *testing.T) {
	w := startMute(t, acceptAll)
	f := families[0]
	d := packettest.UDP(f.src, f.dst, packettest.Body(2992))
	d.ID = 7
	w.send(t, verdict.Inside, d.Fragments(1000)[0])
	w.awaitCounters(t, verdict.Inside, func(c counters) bool { return c.waiting == 1 })
	for args, want := range map[string]string{
		"--json":             `"identification":7,"fragments":1,"received":["0-999"],"missing":["1000-"]`,
		"--by-source --json": `"datagrams":1,"poisoned_datagrams":0,"fragments":1`,
		"--dport 5300":       "waiting  0-999     1000-\n",
	} {
		p := launch(t, w.Middle, nil, append([]string{"waiting", "-c", w.file}, strings.Fields(args)...)...)
		if code := p.wait(t); code != 0 || !strings.Contains(p.stdout.String(), want) {
			t.Errorf("%s: exit code %d: %s%s\nwant %s", args, code, p.stdout.String(), p.stderr.String(), want)
		}
	}
	p := launch(t, w.Middle, nil, "explain", "--live", "-c", w.file, "--from", "inside", "--proto", "udp", "--src", "10.0.0.1", "--dst", "10.0.0.2")
	if code := p.wait(t); code != 0 || !strings.Contains(p.stdout.String(), "accept: no rule matches, so policy.default") {
		t.Errorf("exit code %d: %s%s", code, p.stdout.String(), p.stderr.String())
	}
}
