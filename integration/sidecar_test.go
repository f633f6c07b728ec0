package integration_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// sidecarRules accept everything except packets to one port.
var sidecarRules = pathKey + `
[inside]
tap = "fw-in"
[outside]
tap = "fw-out"
[policy]
default = "accept"
[[rule]]
name = "forbidden"
action = "drop"
protocol = "udp"
dst_port = 5999
`

// startSidecar starts a sidecar in a pod, and waits until it is ready.
func (p *pod) startSidecar(t *testing.T, configuration, state string, arguments ...string) *box {
	t.Helper()
	path := configure(t, configuration)
	arguments = append([]string{"sidecar", "-c", path, "--nic", "eth0", "--state", state}, arguments...)
	b := &box{process: launch(t, p.workload.Namespace, nil, arguments...)}
	b.ready(t)
	return b
}

// end stops a sidecar with SIGTERM, as a container runtime does.
func (b *box) end(t *testing.T) {
	t.Helper()
	b.signal(t, syscall.SIGTERM)
	if code := b.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, b.stderr.String())
	}
}

// checkLost checks that each ping lost at most mostLost replies.
func checkLost(t *testing.T, pings []*pinging) {
	t.Helper()
	for i, ping := range pings {
		if lost := ping.lost(t); len(lost) > mostLost {
			t.Errorf("ping %d lost the replies %v, want at most %d lost", i, lost, mostLost)
		}
	}
}

// mostLost is the maximum number of lost ping replies when the sidecar starts, and when it ends. soonest
// is the maximum time until the sidecar is ready.
const (
	mostLost = 1
	soonest  = time.Second
)

// TestSidecar starts and ends a sidecar while TCP connections are open and pings run in both directions,
// with 100 requests per second.
func TestSidecar(t *testing.T) {
	for _, shape := range podShapes {
		for _, join := range []string{"redirect", "bridge"} {
			t.Run(shape.name+", "+join, func(t *testing.T) {
				p := shape.make(t)
				before := snapshot(t, p.workload.Namespace)
				talks := p.talk(t)
				var pings []*pinging
				for _, ipv6 := range []bool{false, true} {
					pings = append(pings, startPings(t, p.workload, p.peer.Addr(ipv6)), startPings(t, p.peer, p.workload.Addr(ipv6)))
				}
				for _, ping := range pings {
					ping.count()
				}
				begun := time.Now()
				b := p.startSidecar(t, strings.Replace(sidecarRules, `tap = "fw-out"`, "tap = \"fw-out\"\nnic = \"eth0\"\njoin = \""+join+"\"", 1), t.TempDir())
				if took := time.Since(begun); took > soonest {
					t.Errorf("ready after %v", took)
				}
				checkLost(t, pings)
				checkMoved(t, before, snapshot(t, p.workload.Namespace))
				for _, ipv6 := range []bool{false, true} {
					exchange(t, p.workload, p.peer, ipv6, []int{0, 100, 1500, 4000, 20000, 65507})
					bulk(t, p.workload, p.peer, ipv6, 1<<20)
					b.denies(t, p.workload, p.peer, verdict.Inside, ipv6)
					b.denies(t, p.peer, p.workload, verdict.Outside, ipv6)
				}
				for _, talk := range talks {
					talk.awaitProgress(t)
				}
				for _, ping := range pings {
					ping.count()
				}
				b.end(t)
				checkLost(t, pings)
				for _, talk := range talks {
					talk.awaitProgress(t)
				}
				sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
			})
		}
	}
}

// TestSidecarSettings checks that the TAP gets the sysctls of the NIC, and that they are restored on the
// NIC.
func TestSidecarSettings(t *testing.T) {
	p := bridgedPod(t)
	must(t, p.workload.Do(func() error {
		return lab.Sysctl(map[string]string{
			"net/ipv4/conf/eth0/rp_filter":    "1",
			"net/ipv4/conf/eth0/forwarding":   "1",
			"net/ipv4/conf/eth0/arp_ignore":   "1",
			"net/ipv4/conf/eth0/arp_announce": "2",
			"net/ipv6/conf/eth0/accept_ra":    "2",
			"net/ipv6/conf/eth0/hop_limit":    "33",
		})
	}))
	nic := settings(t, p.workload.Namespace, "eth0")
	b := p.startSidecar(t, sidecarRules, t.TempDir())
	tap := settings(t, p.workload.Namespace, "fw-in")
	tap["ipv6/addr_gen_mode"] = nic["ipv6/addr_gen_mode"] // the TAP generates no address
	if !maps.Equal(nic, tap) {
		t.Errorf("the nic had\n%v\nthe tap has\n%v", nic, tap)
	}
	b.end(t)
	if back := settings(t, p.workload.Namespace, "eth0"); !maps.Equal(nic, back) {
		t.Errorf("before\n%v\nafter\n%v", nic, back)
	}
}

// settings returns the sysctls of a device.
func settings(t *testing.T, ns *lab.Namespace, device string) map[string]string {
	t.Helper()
	values := make(map[string]string)
	must(t, ns.Do(func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			dir := filepath.Join("/proc/sys/net", family, "conf", device)
			files, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, f := range files {
				if value, err := os.ReadFile(filepath.Join(dir, f.Name())); err == nil { // a secret that is not set cannot be read
					values[family+"/"+f.Name()] = strings.TrimSpace(string(value))
				}
			}
		}
		return nil
	}))
	return values
}

// denies checks that a large datagram to the forbidden port is dropped, and that one to another port
// passes.
func (b *box) denies(t *testing.T, from, to *lab.Host, side verdict.Side, ipv6 bool) {
	t.Helper()
	client, forbidden := listen(t, from, ipv6, 0), listen(t, to, ipv6, 5999)
	defer forbidden.Close()
	dropped := b.counters(t)[side].dropped["policy_rule"]
	_, err := client.WriteToUDPAddrPort(packettest.Body(4000), address(forbidden))
	must(t, err)
	b.awaitCounters(t, side, func(c counters) bool { return c.dropped["policy_rule"] >= dropped+3 })
	exchange(t, from, to, ipv6, []int{4000})
	must(t, forbidden.SetReadDeadline(time.Now().Add(-time.Second)))
	if n, err := forbidden.Read(make([]byte, 1<<16)); err == nil {
		t.Errorf("%d bytes arrived at the forbidden port", n)
	}
}

// talk is a TCP connection with continuous data in both directions.
type talk struct {
	failed chan error

	mu sync.Mutex
	// mu guards the fields below.
	rounds int
}

// add adds n to the number of rounds, and returns the sum.
func (c *talk) add(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rounds += n
	return c.rounds
}

// talk opens connections to and from the pod, over IPv4 and IPv6.
func (p *pod) talk(t *testing.T) (talks []*talk) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		for _, ends := range [][2]*lab.Host{{p.workload, p.peer}, {p.peer, p.workload}} {
			l, err := ends[1].ListenTCP(ipv6, 0)
			must(t, err)
			t.Cleanup(func() { _ = l.Close() })
			client, err := ends[0].DialTCP(netip.AddrPortFrom(ends[1].Addr(ipv6), l.Addr().(*net.TCPAddr).AddrPort().Port()), waitTimeout)
			must(t, err)
			t.Cleanup(func() { _ = client.Close() })
			server, err := l.Accept()
			must(t, err)
			t.Cleanup(func() { _ = server.Close() })
			c := &talk{failed: make(chan error, 2)}
			go c.speak(client, server)
			c.awaitProgress(t)
			talks = append(talks, c)
		}
	}
	return talks
}

// speak sends a word from one end and waits until it arrives at the other, in both directions in turn.
func (c *talk) speak(client, server net.Conn) {
	from := bufio.NewReader(server)
	for n := 0; ; n++ {
		word := fmt.Sprintln("word", n)
		if _, err := client.Write([]byte(word)); err != nil {
			c.failed <- err
			return
		}
		heard, err := from.ReadString('\n')
		if err != nil || heard != word {
			c.failed <- fmt.Errorf("received %q: %w", heard, err)
			return
		}
		c.add(1)
		client, server = server, client
		from = bufio.NewReader(server)
		time.Sleep(time.Millisecond) // limits the rate
	}
}

// awaitProgress waits for ten more rounds.
func (c *talk) awaitProgress(t *testing.T) {
	t.Helper()
	before := c.add(0)
	eventually(t, func() error {
		select {
		case err := <-c.failed:
			t.Fatalf("the connection broke: %v", err)
		default:
		}
		if c.add(0) < before+10 {
			return fmt.Errorf("the connection transfers no data")
		}
		return nil
	})
}

// namespaceState is the configuration of a namespace as ip(8) shows it, one JSON object per line, by
// subject.
type namespaceState map[string][]string

// snapshot describes a namespace without values that change by themselves. Of a lifetime, it contains
// only whether the lifetime is limited. Of a dynamic neighbour, it does not contain the state.
func snapshot(t *testing.T, ns *lab.Namespace) namespaceState {
	t.Helper()
	s := make(namespaceState)
	for subject, command := range map[string]string{
		"link": "link", "addr": "addr", "rule": "rule", "rule6": "-6 rule", "neigh": "neigh", "proxy": "neigh show proxy",
		"route": "route show table all", "route6": "-6 route show table all",
	} {
		text := ip(t, ns, command, "-json", "-details")
		var objects []map[string]any
		if err := json.Unmarshal([]byte(text), &objects); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, text)
		}
		for _, o := range objects {
			if line := stablePart(t, o); line != "" {
				s[subject] = append(s[subject], line)
			}
		}
	}
	return s
}

// stablePart returns the constant part of an object, or "" for a neighbour that is not resolved.
func stablePart(t *testing.T, o map[string]any) string {
	t.Helper()
	delete(o, "expires")
	if states, ok := o["state"].([]any); ok && len(states) == 1 {
		switch states[0] {
		case "REACHABLE", "STALE", "DELAY", "PROBE":
			o["state"] = "learnt"
		case "FAILED", "INCOMPLETE":
			return ""
		}
	}
	addresses, _ := o["addr_info"].([]any)
	for _, a := range addresses {
		a := a.(map[string]any)
		for _, lifetime := range []string{"valid_life_time", "preferred_life_time"} {
			if a[lifetime] != float64(1<<32-1) {
				a[lifetime] = "ends"
			}
		}
	}
	line, err := json.Marshal(o)
	must(t, err)
	return string(line)
}

// sameSnapshot compares two snapshots. It ignores new dynamic neighbours.
func sameSnapshot(t *testing.T, before, after namespaceState) {
	t.Helper()
	after["neigh"] = slices.DeleteFunc(after["neigh"], func(n string) bool {
		return strings.Contains(n, `"learnt"`) && !slices.Contains(before["neigh"], n)
	})
	for _, neighbours := range []namespaceState{before, after} {
		slices.Sort(neighbours["neigh"]) // the kernel has no order for them
	}
	for subject := range before {
		if was, is := strings.Join(before[subject], "\n"), strings.Join(after[subject], "\n"); was != is {
			t.Errorf("%s before:\n%s\nafter:\n%s", subject, was, is)
		}
	}
}

// checkMoved checks that the TAP has the routes and neighbours that the NIC had, and that the NIC has no
// addresses, routes or neighbours.
func checkMoved(t *testing.T, before, now namespaceState) {
	t.Helper()
	for _, subject := range []string{"route", "route6", "neigh", "proxy"} {
		for _, line := range before[subject] {
			want := strings.ReplaceAll(line, `"dev":"eth0"`, `"dev":"fw-in"`)
			if !slices.Contains(now[subject], want) {
				t.Errorf("%s lacks %s; it has\n%s", subject, want, strings.Join(now[subject], "\n"))
			}
		}
	}
	for _, line := range slices.Concat(now["route"], now["route6"], now["neigh"], now["proxy"]) {
		if strings.Contains(line, `"dev":"eth0"`) {
			t.Errorf("the nic still has %s", line)
		}
	}
	for _, line := range now["addr"] {
		if strings.Contains(line, `"ifname":"eth0"`) && strings.Contains(line, `"local"`) {
			t.Errorf("the nic still has %s", line)
		}
	}
}
