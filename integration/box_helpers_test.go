package integration_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// taps holds the names of the TAP devices in the tests' configurations.
var taps = [verdict.Sides]string{verdict.Inside: "fw-in", verdict.Outside: "fw-out"}

// pathKey begins every configuration. If the environment variable FAST_PATH is off, the tests
// run without the fast path.
var pathKey = map[bool]string{true: "fast_path = \"off\"\n"}[os.Getenv("FAST_PATH") == "off"]

// devices begins the configurations of tests with two NICs.
var devices = pathKey + `
[inside]
tap = "fw-in"
nic = "nic-in"
[outside]
tap = "fw-out"
nic = "nic-out"
`

// bridgeOutside follows devices, and joins the outside by a bridge. The inside uses a redirect.
const bridgeOutside = "join = \"bridge\"\n"

const acceptAll = `
[policy]
default = "accept"
`

// newNetwork makes two hosts, and a middle namespace whose NICs send nothing on their own.
func newNetwork(t *testing.T) *lab.Network {
	t.Helper()
	n, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	for _, h := range n.Hosts {
		must(t, h.Do(func() error { // memory for all fragments that the tests send
			return lab.Sysctl(map[string]string{
				"net/ipv4/ipfrag_high_thresh":  "67108864",
				"net/ipv6/ip6frag_high_thresh": "67108864",
			})
		}))
	}
	must(t, n.Middle.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo) // the status listens there
		}
		if err != nil {
			return err
		}
		return lab.Sysctl(map[string]string{
			"net/ipv6/conf/" + lab.InsideNIC + "/disable_ipv6":  "1",
			"net/ipv6/conf/" + lab.OutsideNIC + "/disable_ipv6": "1",
		})
	}))
	return n
}

// mute prevents the hosts' kernels from sending packets on their own.
func mute(t *testing.T, n *lab.Network) {
	t.Helper()
	for _, h := range n.Hosts {
		must(t, h.Do(func() error {
			return lab.Sysctl(map[string]string{"net/ipv6/conf/" + lab.HostNIC + "/disable_ipv6": "1"})
		}))
	}
}

// box is the program between two hosts.
type box struct {
	*lab.Network
	*process
	file string // path of the configuration
}

// start runs the program with a configuration of devices and rest. When the test ends, it stops the
// program and makes the checks that the package comment lists.
func start(t *testing.T, n *lab.Network, rest string) *box {
	t.Helper()
	return startWith(t, n, nil, devices+rest)
}

// startWith does what start does, with a complete configuration and a prepare function for launch.
func startWith(t *testing.T, n *lab.Network, prepare func() error, config string) *box {
	t.Helper()
	before := describe(t, n.Middle)
	expectNone := watch(t, n)
	b := &box{Network: n, file: configure(t, config)}
	b.process = launch(t, n.Middle, prepare, "run", "-c", b.file)
	b.ready(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output of the program:\n%s", b.stderr.String())
		}
		if b.hasEnded() {
			return // the test ended the program
		}
		b.settle(t)
		b.stop(t)
		sameAs(t, n.Middle, before)
		expectNone()
	})
	return b
}

// stop stops the program with SIGTERM, and checks its exit code and its last counters.
func (b *box) stop(t *testing.T) {
	t.Helper()
	mark := len(b.stderr.String())
	b.signal(t, syscall.SIGTERM)
	if code := b.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	last := parseCounters(t, b.stderr.String()[mark:])
	for side, c := range last {
		if c.waiting != 0 || c.received != c.sum() {
			t.Errorf("last counters, from %v: frames are waiting or the sum is wrong: %+v", verdict.Side(side), c)
		}
	}
}

// configure writes a configuration file.
func configure(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fragwall.toml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// watch opens a packet socket on each host. The returned function fails the test if a host has
// received a frame that does not have the other host's source address. The test calls it at its end.
func watch(t *testing.T, n *lab.Network) (none func()) {
	t.Helper()
	var sockets [verdict.Sides]*lab.Tap
	for side, h := range n.Hosts {
		sockets[side] = tap(t, h)
		must(t, sockets[side].Ignore(n.Hosts[verdict.Side(side).Other()].MAC))
		_, err := sockets[side].Drain() // remove frames that arrived before Ignore
		must(t, err)
	}
	return func() {
		t.Helper()
		for side, s := range sockets {
			frames, err := s.Drain()
			must(t, err)
			for _, f := range frames {
				t.Errorf("the %v host received a frame that the other host did not send: % x", verdict.Side(side), f)
			}
		}
	}
}

// tap opens a packet socket on a host's interface for the duration of the test.
func tap(t *testing.T, h *lab.Host) *lab.Tap {
	t.Helper()
	s, err := h.OpenTap(h.NIC)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// counters are the counters of one side.
type counters struct {
	received, forwarded, waiting, reassembled int
	dropped                                   map[string]int
}

// sum returns the number of frames that are forwarded, waiting or dropped.
func (c counters) sum() int {
	n := c.forwarded + c.waiting
	for _, dropped := range c.dropped {
		n += dropped
	}
	return n
}

var (
	counterLine = regexp.MustCompile(`^from (inside|outside) +received (\d+), forwarded (\d+), waiting (\d+), reassembled (\d+) datagrams?$`)
	otherLine   = regexp.MustCompile(`^(time=.*| +answered \d+ rejected datagrams?|rule ".*" (accept|drop|reject): \d+ datagrams?, \d+ bytes?)$`)
	dropLine    = regexp.MustCompile(`^ +dropped (\d+): ([a-z0-9_]+)$`)
)

// countersLine is the JSON log record with the counters of a side.
type countersLine struct {
	Msg, From                                 string
	Received, Forwarded, Waiting, Reassembled int
	Dropped                                   map[string]int
}

// parseCounters parses the counters that the program prints before it exits, as text or as JSON log
// records.
func parseCounters(t *testing.T, text string) (sides [verdict.Sides]counters) {
	t.Helper()
	var side *counters
	seen := 0
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		must(t, err)
		return n
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		var record countersLine
		if json.Unmarshal([]byte(line), &record) == nil {
			if record.Msg == "counters" && record.From != "" {
				seen++
				sides[sideNamed(record.From)] = counters{record.Received, record.Forwarded, record.Waiting, record.Reassembled, record.Dropped}
			}
		} else if m := counterLine.FindStringSubmatch(line); m != nil {
			side = &sides[sideNamed(m[1])]
			seen++
			*side = counters{number(m[2]), number(m[3]), number(m[4]), number(m[5]), map[string]int{}}
		} else if m := dropLine.FindStringSubmatch(line); m != nil && side != nil {
			side.dropped[m[2]] = number(m[1])
		} else if !otherLine.MatchString(line) {
			t.Errorf("unexpected line %q in the counters", line)
		}
	}
	if seen != verdict.Sides {
		t.Fatalf("counters of %d sides, want %d:\n%s", seen, verdict.Sides, text)
	}
	return sides
}

func sideNamed(name string) verdict.Side {
	if name == verdict.Outside.String() {
		return verdict.Outside
	}
	return verdict.Inside
}

// counters requests the counters from the running program.
func (b *box) counters(t *testing.T) (sides [verdict.Sides]counters) {
	t.Helper()
	var report struct {
		Sides map[string]struct {
			Received    int `json:"received_frames"`
			Forwarded   int `json:"forwarded_frames"`
			Waiting     int `json:"waiting_frames"`
			Reassembled int `json:"reassembled_datagrams"`
			Dropped     map[string]int
		}
	}
	must(t, json.Unmarshal([]byte(fetch(t, b.ns, "/api/status")), &report))
	for name, side := range report.Sides {
		sides[sideNamed(name)] = counters{side.Received, side.Forwarded, side.Waiting, side.Reassembled, side.Dropped}
	}
	return sides
}

// awaitCounters waits until as returns true for a side's counters.
func (b *box) awaitCounters(t *testing.T, from verdict.Side, as func(counters) bool) counters {
	t.Helper()
	var c counters
	eventually(t, func() error {
		if c = b.counters(t)[from]; !as(c) {
			return fmt.Errorf("counters from %v: %+v", from, c)
		}
		return nil
	})
	return c
}

// settle waits until the program has counted all frames that the kernel passed to it.
func (b *box) settle(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		for side, c := range b.counters(t) {
			read, refused := b.given(t, verdict.Side(side))
			most := read + refused + c.dropped["fragment_shed"] // the TAP does not count frames that a full ring refuses
			if c.received < read || c.received > most || c.received != c.sum() {
				return fmt.Errorf("from %v: %+v, but the kernel passed %d frames and refused %d", verdict.Side(side), c, read, refused)
			}
		}
		return nil
	})
}

// given returns the number of frames that arrived on a side, according to the kernel: frames are
// those that the TAP passed to the program, and those that the fast path forwarded, dropped or
// passed by a ring. refused are those that the TAP refused. The program counts refused frames as
// received if they are shed, but not if they are missed.
func (b *box) given(t *testing.T, from verdict.Side) (frames, refused int) {
	t.Helper()
	fast := b.fastPath(t).Sides[from.String()]
	defer func() { frames += fast.Forwarded + fast.Dropped + fast.Ring }()
	must(t, b.Middle.Do(func() error {
		link, err := netlink.LinkByName(taps[from])
		if err == nil {
			frames, refused = int(link.Attrs().Statistics.TxPackets), int(link.Attrs().Statistics.TxDropped)
		}
		return err
	}))
	return frames, refused
}

// describe lists the configuration of a namespace that the program may change: links, addresses and
// sysctls.
func describe(t *testing.T, ns *lab.Namespace) (text string) {
	t.Helper()
	must(t, ns.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			a := l.Attrs()
			addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			text += fmt.Sprintf("%d %s %s up %v mtu %d master %d promisc %d %v", a.Index, a.Name, l.Type(),
				a.Flags&net.FlagUp != 0, a.MTU, a.MasterIndex, a.Promisc, a.HardwareAddr)
			for _, address := range addresses {
				text += " " + address.IPNet.String()
			}
			text += setting("ipv6/conf/"+a.Name+"/disable_ipv6") + "\n"
		}
		for _, family := range []string{"iptables", "ip6tables", "arptables"} {
			text += setting("bridge/bridge-nf-call-" + family)
		}
		return nil
	}))
	return text
}

// setting returns a network sysctl of the calling thread's namespace, or "" if it does not exist.
func setting(name string) string {
	value, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" %s %s", name, strings.TrimSpace(string(value)))
}

// sameAs waits until the description of a namespace is the same as before. The kernel may take some
// time to restore a link-local address.
func sameAs(t *testing.T, ns *lab.Namespace, before string) {
	t.Helper()
	eventually(t, func() error {
		if now := describe(t, ns); now != before {
			return fmt.Errorf("before:\n%s\nafter:\n%s", before, now)
		}
		return nil
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
