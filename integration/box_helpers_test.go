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

// taps are the TAP devices of the tests' configurations.
var taps = [verdict.Sides]string{verdict.Inside: "fw-in", verdict.Outside: "fw-out"}

// pathKey begins every configuration. With FAST_PATH=off in the environment, the tests
// run without the fast path.
var pathKey = map[bool]string{true: "fast_path = \"off\"\n"}[os.Getenv("FAST_PATH") == "off"]

// devices begins the tests' configurations.
var devices = pathKey + `
[inside]
tap = "fw-in"
nic = "nic-in"
[outside]
tap = "fw-out"
nic = "nic-out"
`

// bridgeOutside, after devices, joins the outside by a bridge, while the inside uses a
// redirect.
const bridgeOutside = "join = \"bridge\"\n"

const acceptAll = `
[policy]
default = "accept"
`

// newNetwork makes two hosts, and a middle that sends nothing by itself.
func newNetwork(t *testing.T) *lab.Network {
	t.Helper()
	n, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	for _, h := range n.Hosts {
		must(t, h.Do(func() error { // all that comes may wait
			return lab.Sysctl(map[string]string{
				"net/ipv4/ipfrag_high_thresh":  "67108864",
				"net/ipv6/ip6frag_high_thresh": "67108864",
			})
		}))
	}
	must(t, n.Middle.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo) // where the status is to be had
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

// mute prevents the hosts' kernels from sending anything unasked.
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
	file string // its configuration
}

// start runs the program with a configuration that begins with devices. At the end of the
// test it checks what must always hold.
func start(t *testing.T, n *lab.Network, rest string) *box {
	t.Helper()
	return startWith(t, n, nil, devices+rest)
}

// startWith is start with a whole configuration, and a function to call before the
// launch.
func startWith(t *testing.T, n *lab.Network, prepare func() error, config string) *box {
	t.Helper()
	before := describe(t, n.Middle)
	expectNone := watch(t, n)
	b := &box{Network: n, file: configure(t, config)}
	b.process = launch(t, n.Middle, prepare, "run", "-c", b.file)
	b.ready(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the program said:\n%s", b.stderr.String())
		}
		if b.hasEnded() {
			return // as the test wanted
		}
		b.settle(t)
		b.stop(t)
		sameAs(t, n.Middle, before)
		expectNone()
	})
	return b
}

// stop stops the program as an operator does.
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
			t.Errorf("at the end, from %v: %+v", verdict.Side(side), c)
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

// watch opens packet sockets that look for frames that the other host did not send, which
// are the box's own. The test calls the returned function at its end.
func watch(t *testing.T, n *lab.Network) (none func()) {
	t.Helper()
	var sockets [verdict.Sides]*lab.Tap
	for side, h := range n.Hosts {
		sockets[side] = tap(t, h)
		must(t, sockets[side].Ignore(n.Hosts[verdict.Side(side).Other()].MAC))
		_, err := sockets[side].Drain() // of what came before it ignored that
		must(t, err)
	}
	return func() {
		t.Helper()
		for side, s := range sockets {
			frames, err := s.Drain()
			must(t, err)
			for _, f := range frames {
				t.Errorf("the %v host got a frame that nobody sent: % x", verdict.Side(side), f)
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

func (c counters) sum() int {
	n := c.forwarded + c.waiting
	for _, dropped := range c.dropped {
		n += dropped
	}
	return n
}

var (
	counterLine = regexp.MustCompile(`^from (inside|outside) +received (\d+), forwarded (\d+), waiting (\d+), reassembled (\d+) datagrams$`)
	otherLine   = regexp.MustCompile(`^(time=.*| +answered \d+ rejected datagrams|rule ".*" (accept|drop|reject): \d+ datagrams, \d+ bytes)$`)
	dropLine    = regexp.MustCompile(`^ +dropped (\d+): ([a-z0-9_]+)$`)
)

// countersLine is the record with a side's counters in a log in JSON.
type countersLine struct {
	Msg, From                                 string
	Received, Forwarded, Waiting, Reassembled int
	Dropped                                   map[string]int
}

// parseCounters reads the counters that the program prints at its end, as text or as log
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
			t.Errorf("line %q among the counters", line)
		}
	}
	if seen != verdict.Sides {
		t.Fatalf("no counters of both sides:\n%s", text)
	}
	return sides
}

func sideNamed(name string) verdict.Side {
	if name == verdict.Outside.String() {
		return verdict.Outside
	}
	return verdict.Inside
}

// counters requests the counters from the program.
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

// awaitCounters waits until a side's counters have the expected values.
func (b *box) awaitCounters(t *testing.T, from verdict.Side, as func(counters) bool) counters {
	t.Helper()
	var c counters
	eventually(t, func() error {
		if c = b.counters(t)[from]; !as(c) {
			return fmt.Errorf("from %v: %+v", from, c)
		}
		return nil
	})
	return c
}

// settle waits until the program has counted exactly what the kernel passed to it.
func (b *box) settle(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		for side, c := range b.counters(t) {
			read, refused := b.given(t, verdict.Side(side))
			most := read + refused + c.dropped["fragment_shed"] // which the TAP does not count where a ring refuses
			if c.received < read || c.received > most || c.received != c.sum() {
				return fmt.Errorf("from %v: %+v, while the kernel gave %d, and refused %d", verdict.Side(side), c, read, refused)
			}
		}
		return nil
	})
}

// given returns the number of frames that arrived on a side, by the kernel's counts of
// those passed to the program, of those that the fast path handled or passed by a ring,
// and of those refused: shed frames count as received, missed frames do not.
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

// describe lists everything in a namespace that the program might change.
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

// setting returns a network sysctl of the calling thread's namespace.
func setting(name string) string {
	value, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" %s %s", name, strings.TrimSpace(string(value)))
}

// sameAs waits until a namespace is as before: the kernel may take a moment to restore a
// link-local address.
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
