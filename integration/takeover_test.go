package integration_test

import (
	"fmt"
	"os"
	"os/exec"
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

// flowsOut accepts new flows from the inside only.
const flowsOut = "[policy]\nstateful = true\n[[rule]]\nname = \"out\"\naction = \"accept\"\nfrom = \"inside\"\n"

// takeOver makes a new process with a configuration file take over. The box continues with the new process.
func (b *box) takeOver(t *testing.T, file string) {
	t.Helper()
	next := launch(t, b.Middle, nil, "run", "-c", file, "--replace")
	next.ready(t)
	if code := b.wait(t); code != 0 {
		t.Errorf("the old process ended with %d:\n%s", code, b.stderr.String())
	}
	if said := next.stderr.String(); strings.Contains(said, "file exists") {
		t.Errorf("something of the old process is left:\n%s", said)
	} else if !strings.Contains(said, fmt.Sprintf(`msg="took over" process=%d `, b.Pid)) {
		t.Errorf("the new process does not log that it took over:\n%s", said)
	}
	b.process, b.file = next, file
}

// totals returns the values of counters and histograms in the metrics, by series.
func totals(t *testing.T, ns *lab.Namespace) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(fragwall_\w+_(?:total|count|sum|bucket)(?:\{.*\})?) (\S+)$`).FindAllStringSubmatch(fetch(t, ns, "/metrics"), -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		must(t, err)
		all[m[1]] = value
	}
	return all
}

// TestTakeOver makes several processes take over in turn, with several configurations. An open connection
// must continue, no counter may decrease, the sockets must stay usable, and the last process must restore
// the NICs.
func TestTakeOver(t *testing.T) {
	for name, config := range map[string]string{
		"redirect":     devices + "queues = 2\n",
		"bridge":       devices + bridgeOutside,
		"no fast path": "fast_path = \"off\"\n" + strings.TrimPrefix(devices, pathKey),
		"validate":     devices + "[fragments]\nmode = \"validate\"\n",
		"propagate":    "on_link_down = \"propagate\"\n" + devices,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			mute(t, n)
			before := describe(t, n.Middle)
			b := &box{Network: n, file: configure(t, config+flowsOut)}
			b.process = launch(t, n.Middle, nil, "run", "-c", b.file)
			b.ready(t)
			one, other := connect(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false)
			talkTCP(t, one, other)
			was := totals(t, n.Middle)
			for range 3 {
				b.takeOver(t, b.file)
				talkTCP(t, one, other)
				now := totals(t, n.Middle)
				for series, n := range was {
					if now[series] < n {
						t.Errorf("%s decreased from %v to %v", series, n, now[series])
					}
				}
				was = now
			}
			if p := launch(t, n.Middle, nil, "reload", "-c", b.file); p.wait(t) != 0 {
				t.Errorf("reload over the control socket: %s", p.stderr.String())
			}
			b.stop(t)
			sameAs(t, n.Middle, before)
		})
	}
}

// TestTakeOverRefused starts processes that cannot or may not take over. Each must print the reason, and the
// running process must continue.
func TestTakeOverRefused(t *testing.T) {
	n := newNetwork(t)
	b := start(t, n, flowsOut)
	one, other := connect(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], false)
	socket := regexp.MustCompile(`socket=(\S+)`).FindStringSubmatch(b.stderr.String())[1]
	for _, tt := range []struct {
		config string
		user   uint32
		code   int
		want   string
	}{
		{devices + flowsOut + "[nonsense]\n", 0, 2, "unknown key"},
		{strings.Replace(devices, "tap = \"fw-in\"\n", "tap = \"fw-in\"\nmtu = 1400\nqueues = 1\n", 1) + flowsOut, 0, 1,
			"its devices differ in inside.mtu, inside.queues: restore the configuration, or stop it and start the new one"},
		{devices + flowsOut, 65534, 1, "permission denied: only its owner and root may use it"},
	} {
		if mapped, err := os.ReadFile("/proc/self/uid_map"); err != nil || tt.user != 0 && !strings.Contains(string(mapped), "4294967295") {
			continue // a user namespace with one user cannot run the case
		}
		directory, err := os.MkdirTemp("", "fragwall")
		must(t, err)
		defer os.RemoveAll(directory)
		file := filepath.Join(directory, "x.toml")
		must(t, os.WriteFile(file, []byte(tt.config), 0o644))
		must(t, os.Chmod(directory, 0o755))
		binary := filepath.Join(directory, "fragwall") // the other user may run this copy
		must(t, os.Link(program, binary))
		must(t, os.Chmod(binary, 0o755))
		c := exec.Command(binary, "run", "-c", file, "--replace", "--socket", socket)
		if tt.user != 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.user, Gid: tt.user}}
		}
		var said []byte
		must(t, n.Middle.Do(func() error {
			said, _ = c.CombinedOutput()
			return nil
		}))
		if code := c.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(said), tt.want) {
			t.Errorf("exit code %d, want %d and %q:\n%s", code, tt.code, tt.want, said)
		}
		if b.hasEnded() {
			t.Fatalf("the box ended:\n%s", b.stderr.String())
		}
		talkTCP(t, one, other)
	}
}

// TestTakeOverBypass checks that a process with on_exit = "bypass" leaves no bypass when it is replaced, and
// that the next process leaves one when it stops.
func TestTakeOverBypass(t *testing.T) {
	n := newNetwork(t)
	b := &box{Network: n, file: configure(t, "on_exit = \"bypass\"\n"+devices)} // drops everything
	b.process = launch(t, n.Middle, nil, "run", "-c", b.file)
	b.ready(t)
	b.takeOver(t, b.file)
	must(t, n.Middle.Do(func() error {
		if _, err := netlink.LinkByName(taps[verdict.Inside]); err != nil {
			return err
		}
		return nil
	}))
	b.signal(t, syscall.SIGTERM)
	if code := b.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, b.stderr.String())
	}
	exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], true, []int{1, 4000})
}

// TestTakeOverWaitingNIC takes over while a NIC is missing. The new process must join the NIC when it
// returns.
func TestTakeOverWaitingNIC(t *testing.T) {
	n := newNetwork(t)
	b := &box{Network: n, file: configure(t, devices+acceptAll)}
	b.process = launch(t, n.Middle, nil, "run", "-c", b.file)
	b.ready(t)
	must(t, b.Middle.Do(func() error { return remove(lab.OutsideNIC) }))
	b.stderr.await(t, b.process, 0, "nic removed")
	b.takeOver(t, b.file)
	must(t, b.Replug(verdict.Outside))
	b.stderr.await(t, b.process, 0, "nic returned")
	outside := n.Hosts[verdict.Outside]
	must(t, outside.Do(func() error {
		return lab.Sysctl(map[string]string{"net/ipv6/conf/" + lab.HostNIC + "/disable_ipv6": "0"})
	}))
	exchange(t, n.Hosts[verdict.Inside], outside, false, []int{1, 4000})
	b.stop(t)
}
