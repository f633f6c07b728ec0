package integration_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/integration/trunk"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// stateful accepts new flows from the inside only.
const stateful = `
[policy]
stateful = true
[[rule]]
name = "out"
action = "accept"
from = "inside"
`

// most is the minimum share of frames that must use the fast path if all frames can use it.
const most = 0.9

// TestFastPathForwards checks that most frames of UDP, TCP and echo flows use the fast path.
func TestFastPathForwards(t *testing.T) {
	for name, rest := range map[string]string{"stateless": acceptAll, "stateful": stateful} {
		t.Run(name, func(t *testing.T) {
			b := start(t, newNetwork(t), rest)
			b.needFastPath(t)
			inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
			eachFamily(t, func(t *testing.T, ipv6 bool) {
				b.takes(t, most, talkUDP(t, inside, outside, ipv6, 100))
				one, other := connect(t, inside, outside, ipv6)
				b.takes(t, most, func() { talkTCP(t, one, other) })
				b.takes(t, 0.5, func() { echoes(t, inside, outside.Addr(ipv6)) }) // each ping is a new flow
			})
		})
	}
}

// TestFastPathInVLAN checks that frames with one tag use the fast path, and frames with two tags do
// not.
func TestFastPathInVLAN(t *testing.T) {
	b := start(t, newNetwork(t), stateful)
	b.needFastPath(t)
	var trunks [verdict.Sides]*trunk.Trunk
	for side, h := range b.Hosts {
		trunks[side] = openTrunk(t, h)
	}
	all := []packet.Tag{{TPID: 0x8100, TCI: 10}, {TPID: 0x8100, TCI: 40}}
	for tags := 1; tags <= 2; tags++ {
		var hosts [verdict.Sides]*lab.Host
		for side := range hosts {
			v, err := trunks[side].VLAN(all[:tags]...)
			must(t, err)
			hosts[side] = v
		}
		talk := talkUDP(t, hosts[verdict.Inside], hosts[verdict.Outside], true, 100)
		if tags == 1 {
			b.takes(t, most, talk)
			continue
		}
		before := b.fastPath(t).Sides["inside"]
		talk()
		if now := b.fastPath(t).Sides["inside"]; now.Forwarded != before.Forwarded || now.PassedUp["not_ip"] < before.PassedUp["not_ip"]+300 {
			t.Errorf("frames with two tags: before %+v, after %+v", before, now)
		}
	}
}

// TestFastPathFragments checks that most fragments use the fast path in mode validate.
func TestFastPathFragments(t *testing.T) {
	b := start(t, newNetwork(t), "[fragments]\nmode = \"validate\"\n"+acceptAll)
	b.needFastPath(t)
	eachFamily(t, func(t *testing.T, ipv6 bool) {
		b.takes(t, most, talkUDP(t, b.Hosts[verdict.Inside], b.Hosts[verdict.Outside], ipv6, 8000))
	})
}

// TestFastPathOffReported checks that the log, the status and the metrics say why the fast path is off,
// and the log only once.
func TestFastPathOffReported(t *testing.T) {
	for name, c := range map[string]struct {
		config  string
		prepare func() error
		want    string
	}{
		"configuration": {"fast_path = \"off\"\n" + strings.TrimPrefix(devices, pathKey), nil, "configuration"},
		"bridge":        {strings.TrimPrefix(devices, pathKey) + bridgeOutside, noNetfilter, "bridge"},
		"no nic":        {strings.Replace(strings.TrimPrefix(devices, pathKey), "nic = \"nic-in\"\n", "", 1), nil, "no_nic"},
		"rights":        {strings.TrimPrefix(devices, pathKey), func() error { return without(unix.CAP_BPF, unix.CAP_SYS_ADMIN) }, "rights"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			b := &box{Network: n, process: launch(t, n.Middle, c.prepare, "run", "-c", configure(t, c.config+acceptAll))}
			b.ready(t)
			if f := b.fastPath(t); f.State != "off" || f.Reason != c.want {
				t.Errorf("status %+v, want off because of %s", f, c.want)
			}
			said := b.stderr.String()
			if strings.Count(said, "the fast path is off") != 1 || !strings.Contains(said, "reason="+c.want) {
				t.Errorf("the log does not say once why the fast path is off:\n%s", said)
			}
			if line := `fragwall_fastpath_info{reason="` + c.want + `",state="off"} 1`; !strings.Contains(fetch(t, n.Middle, "/metrics"), line) {
				t.Errorf("the metrics have no %s", line)
			}
			b.stop(t)
		})
	}
}

// TestFastPathCounters sends an accepted flow from each side and a denied one, while the policy is
// reloaded repeatedly. The program's numbers of frames must equal those of the NICs of the middle and
// of the hosts.
func TestFastPathCounters(t *testing.T) {
	for name, rest := range map[string]string{
		"stateless": onePort + "[log]\ndrops = \"1/s\"\n",
		"stateful":  strings.Replace(onePort, "[policy]", "[policy]\nstateful = true", 1) + "[log]\ndrops = \"1/s\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			mute(t, n)
			b := start(t, n, rest)
			b.needFastPath(t)
			inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
			var servers [verdict.Sides]*net.UDPConn // by the side of their clients
			for from := range servers {
				servers[from] = listen(t, b.Hosts[verdict.Side(from).Other()], false, 5300)
				c := listen(t, b.Hosts[from], false, 0) // resolves the MAC addresses
				_, err := c.WriteToUDPAddrPort([]byte("x"), address(servers[from]))
				must(t, err)
				arrive(t, servers[from], []byte("x"))
			}
			b.settle(t)
			before := b.counters(t)
			var nics, hosts [verdict.Sides]uint64
			for side, nic := range []string{lab.InsideNIC, lab.OutsideNIC} {
				nics[side], _ = nicFrames(t, b.Middle, nic)
				hosts[side], _ = nicFrames(t, b.Hosts[side].Namespace, b.Hosts[side].NIC)
			}
			var stops []func() (int, error)
			for _, s := range []struct {
				from *lab.Host
				to   netip.AddrPort
			}{{inside, address(servers[0])}, {outside, address(servers[1])}, {inside, netip.AddrPortFrom(outside.IPv4, 5301)}} {
				stop, err := streamUDP(s.from, s.to, 100, 100*time.Microsecond)
				must(t, err)
				stops = append(stops, stop)
			}
			for range 20 {
				mark := len(b.stderr.String())
				b.signal(t, syscall.SIGHUP)
				b.stderr.await(t, b.process, mark, "msg=reloaded")
				time.Sleep(100 * time.Millisecond) // lets traffic flow between reloads
			}
			var sent []int
			for _, stop := range stops {
				n, err := stop()
				must(t, err)
				sent = append(sent, n)
			}
			b.settle(t)
			now, fast := b.counters(t), b.fastPath(t)
			for side := range verdict.Side(verdict.Sides) {
				nic, _ := nicFrames(t, b.Middle, []string{lab.InsideNIC, lab.OutsideNIC}[side])
				host, _ := nicFrames(t, b.Hosts[side.Other()].Namespace, b.Hosts[side.Other()].NIC)
				if got, want := now[side].received-before[side].received, int(nic-nics[side]); got != want {
					t.Errorf("from %v: the box received %d frames, its NIC %d", side, got, want)
				}
				if got, want := now[side].forwarded-before[side].forwarded, int(host-hosts[side.Other()]); got != want {
					t.Errorf("from %v: the box forwarded %d frames, the host received %d", side, got, want)
				}
				if fast.Sides[side.String()].Forwarded == 0 {
					t.Errorf("from %v: no frame used the fast path: %+v", side, fast)
				}
			}
			denied := now[verdict.Inside].dropped["policy_default"] - before[verdict.Inside].dropped["policy_default"]
			if denied != sent[2] || fast.Sides["inside"].Dropped == 0 {
				t.Errorf("dropped %d of %d denied frames, %d of them in the fast path", denied, sent[2], fast.Sides["inside"].Dropped)
			}
		})
	}
}

// TestFastPathConnectionEnd ends connections by FIN and by RST after many segments that only the
// fast path processed. The FIN and the RST must still belong to the flow.
func TestFastPathConnectionEnd(t *testing.T) {
	b := start(t, newNetwork(t), stateful)
	b.needFastPath(t)
	inside, outside := b.Hosts[verdict.Inside], b.Hosts[verdict.Outside]
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset %v", reset), func(t *testing.T) {
			client, server := connect(t, inside, outside, false)
			b.takes(t, most, func() { talkTCP(t, client, server) })

			// The flow's state is correct although no lane processed its last segments.
			port := server.LocalAddr().(*net.TCPAddr).Port
			p := launch(t, b.Middle, nil, "flows", "-c", b.file, "--json", "--port", fmt.Sprint(port))
			if code := p.wait(t); code != 0 || strings.Count(p.stdout.String(), "\n") != 1 || !strings.Contains(p.stdout.String(), `"state":"ESTABLISHED"`) {
				t.Errorf("flows: %d: %s%s", code, p.stdout.String(), p.stderr.String())
			}
			if reset {
				must(t, client.SetLinger(0))
			}
			must(t, client.Close())
			_, err := server.Read(make([]byte, 1))
			if want := map[bool]error{false: io.EOF, true: syscall.ECONNRESET}[reset]; !errors.Is(err, want) {
				t.Errorf("the server read %v, want %v", err, want)
			}
			must(t, server.Close())
			for side, c := range b.counters(t) {
				if c.dropped["flow_invalid"] > 0 {
					t.Errorf("from %v: segments were dropped as flow_invalid: %+v", verdict.Side(side), c)
				}
			}
		})
	}
}

// TestFastPathNICReturns removes a NIC and adds another one with its name. By then the process has dropped
// the right to load programs. The fast path must work with the new NIC.
func TestFastPathNICReturns(t *testing.T) {
	n := newNetwork(t)
	b := &box{Network: n, process: launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))}
	b.ready(t)
	b.needFastPath(t)
	inside, outside := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	for range 2 {
		b.takes(t, most, talkUDP(t, inside, outside, false, 100))
		mark := len(b.stderr.String())
		must(t, n.Middle.Do(func() error { return remove(lab.OutsideNIC) }))
		b.stderr.await(t, b.process, mark, "nic removed")
		must(t, n.Replug(verdict.Outside))
		b.stderr.await(t, b.process, mark, "returned and is joined again")
		ip(t, inside.Namespace, "neigh flush dev "+inside.NIC) // the outside host has a new MAC address
	}
	b.stop(t)
}

// TestFastPathKilled kills the program while frames use the fast path. After that, no frame may pass.
func TestFastPathKilled(t *testing.T) {
	n := newNetwork(t)
	b := &box{Network: n, process: launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))}
	b.ready(t)
	b.needFastPath(t)
	inside, outside := n.Hosts[verdict.Inside], n.Hosts[verdict.Outside]
	b.takes(t, most, talkUDP(t, inside, outside, false, 100))
	server := listen(t, outside, false, 0)
	stop, err := streamUDP(inside, address(server), 100, 100*time.Microsecond)
	must(t, err)
	fast := b.fastPath(t)
	eventually(t, func() error {
		if took := b.fastPath(t).Sides["inside"].Forwarded; took < fast.Sides["inside"].Forwarded+1000 {
			return fmt.Errorf("only %d frames used the fast path", took)
		}
		return nil
	})
	b.signal(t, syscall.SIGKILL)
	b.wait(t)
	arrived, _ := nicFrames(t, n.Middle, lab.InsideNIC)
	passed, _ := nicFrames(t, outside.Namespace, outside.NIC)
	eventually(t, func() error {
		if now, _ := nicFrames(t, n.Middle, lab.InsideNIC); now < arrived+1000 {
			return fmt.Errorf("only %d frames arrived since", now-arrived)
		}
		return nil
	})
	if now, _ := nicFrames(t, outside.Namespace, outside.NIC); now != passed {
		t.Errorf("%d frames passed a box that was killed", now-passed)
	}
	_, err = stop()
	must(t, err)
}

// TestFastPathOfSidecar checks that a pod's traffic uses the fast path if the sidecar may load eBPF
// programs. Otherwise the traffic must use the process.
func TestFastPathOfSidecar(t *testing.T) {
	for name, c := range map[string]struct {
		capabilities []uintptr
		state        string
	}{
		"with CAP_BPF":    {[]uintptr{unix.CAP_NET_ADMIN, unix.CAP_BPF}, "on"},
		"without CAP_BPF": {[]uintptr{unix.CAP_NET_ADMIN}, "off"},
	} {
		t.Run(name, func(t *testing.T) {
			p := routedPod(t)
			before := snapshot(t, p.workload.Namespace)
			config := configure(t, sidecarRules)
			b := &box{process: launch(t, p.workload.Namespace, func() error { return only(c.capabilities...) }, "sidecar", "-c", config, "--nic", "eth0", "--state", t.TempDir())}
			b.ready(t)
			if c.state == "on" {
				b.needFastPath(t)
			} else if f := b.fastPath(t); f.State != "off" || f.Reason != "rights" {
				t.Errorf("%+v", f)
			}
			eachFamily(t, func(t *testing.T, ipv6 bool) {
				for _, way := range [][2]*lab.Host{{p.workload, p.peer}, {p.peer, p.workload}} {
					one, other := connect(t, way[0], way[1], ipv6)
					for _, talk := range []func(){talkUDP(t, way[0], way[1], ipv6, 100), func() { talkTCP(t, one, other) }} {
						if talk(); c.state == "on" {
							b.takes(t, most, talk)
						}
					}
				}
				echoes(t, p.peer, p.workload.Addr(ipv6))
				exchange(t, p.workload, p.peer, ipv6, []int{4000, 60000})
			})
			for side, counted := range b.counters(t) {
				if took := b.fastPath(t).Sides[verdict.Side(side).String()].Forwarded; (took > 0) != (c.state == "on") || counted.received != counted.sum() {
					t.Errorf("from %v: %+v, by the fast path %d", verdict.Side(side), counted, took)
				}
			}
			b.end(t)
			sameSnapshot(t, before, snapshot(t, p.workload.Namespace))
		})
	}
}
