package integration_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestStartAfterKill kills a process that leaves a redirect and a bridge. The next process must
// use them, and remove them when it ends. The sysctls of bridge netfilter are 0 from the beginning,
// because the next process cannot know their former values.
func TestStartAfterKill(t *testing.T) {
	n := newNetwork(t)
	must(t, n.Middle.Do(noNetfilter))
	before := describe(t, n.Middle)
	killed := launch(t, n.Middle, nil, "run", "-c", configure(t, devices+bridgeOutside+acceptAll))
	killed.ready(t)
	killed.signal(t, syscall.SIGKILL)
	killed.wait(t)
	if now := describe(t, n.Middle); !strings.Contains(now, "fw-out-br") || now == before {
		t.Fatal("the killed process left no bridge")
	}
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, devices+bridgeOutside+acceptAll))
	b.ready(t)
	exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], true, []int{4000})
	b.settle(t)
	b.stop(t)
	sameAs(t, n.Middle, before)
}

// setLink changes a device of the middle namespace.
func setLink(t *testing.T, n *lab.Network, name string, set func(netlink.Link) error) {
	t.Helper()
	must(t, n.Middle.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return set(link)
	}))
}

// TestLinksGoDownAndUp takes each device down while frames arrive.
func TestLinksGoDownAndUp(t *testing.T) {
	w := startMute(t, bridgeOutside+acceptAll)
	f := families[0]
	for _, device := range []string{lab.InsideNIC, lab.OutsideNIC, "fw-in", "fw-out", "fw-out-br"} {
		t.Run(device, func(t *testing.T) {
			setLink(t, w.Network, device, netlink.LinkSetDown)
			for from := range verdict.Side(verdict.Sides) {
				frame := packettest.UDP(f.src, f.dst, packettest.Body(9)).Frame()
				// Sending fails if the link is down.
				_ = w.sockets[from].Send(lab.Between(w.Hosts[from], w.Hosts[from.Other()], frame)...)
			}
			w.settle(t)
			setLink(t, w.Network, device, netlink.LinkSetUp)
			for from := range verdict.Side(verdict.Sides) {
				w.awaitLink(t, from)
				frames := packettest.UDP(f.src, f.dst, packettest.Body(4000)).Fragments(1448)
				w.send(t, from, frames[2], frames[1], frames[0])
				awaitFrame(t, w.sockets[from.Other()], func(p *packet.Parsed) bool { return p.Fragment.Present && !p.Fragment.More })
			}
		})
	}
}

// awaitLink sends frames until one arrives. The kernel updates the state of links with a delay.
func (w *wires) awaitLink(t *testing.T, from verdict.Side) {
	t.Helper()
	eventually(t, func() error {
		frame := packettest.UDP(families[0].src, families[0].dst, nil).Frame()
		if err := w.sockets[from].Send(lab.Between(w.Hosts[from], w.Hosts[from.Other()], frame)...); err != nil {
			return err
		}
		_, err := w.sockets[from.Other()].Receive(time.Now().Add(20 * time.Millisecond))
		return err
	})
}

// TestNICRemoved removes a NIC while the program runs. The program must continue.
func TestNICRemoved(t *testing.T) {
	n := newNetwork(t)
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))
	b.ready(t)
	must(t, n.Middle.Do(func() error { return remove(lab.OutsideNIC) }))
	without := describe(t, n.Middle)
	client := listen(t, n.Hosts[verdict.Inside], true, 0)
	_, err := client.WriteToUDPAddrPort(packettest.Body(4000), address(client))
	must(t, err)
	b.settle(t)
	if now := describe(t, n.Middle); now != without {
		t.Errorf("before:\n%s\nafter:\n%s", without, now)
	}
	b.stop(t)
	onlyNIC(t, n, lab.InsideNIC)
}

// TestTAPRemoved removes a TAP. The program cannot continue without it, and must exit with 1.
func TestTAPRemoved(t *testing.T) {
	n := newNetwork(t)
	before := describe(t, n.Middle)
	p := launch(t, n.Middle, nil, "run", "-c", configure(t, devices+acceptAll))
	p.ready(t)
	mark := len(p.stderr.String())
	must(t, n.Middle.Do(func() error { return remove("fw-out") }))
	if code := p.wait(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if said := p.stderr.String()[mark:]; !strings.Contains(said, `"fw-out"`) || !strings.Contains(said, "removed") {
		t.Errorf("stderr does not say that \"fw-out\" was removed:\n%s", said)
	}
	sameAs(t, n.Middle, before)
}

// onlyNIC checks that the middle namespace has only the loopback interface and one NIC.
func onlyNIC(t *testing.T, n *lab.Network, name string) {
	t.Helper()
	var names []string
	must(t, n.Middle.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			names = append(names, l.Attrs().Name)
		}
		return err
	}))
	if len(names) != 2 || names[0] != "lo" || names[1] != name {
		t.Errorf("links %q, want lo and %s", names, name)
	}
}

// TestRunKilledDuringStart kills the program at moments spread over its start, during which it also
// repairs what the process before it left. The original state of the NICs must never be lost.
func TestRunKilledDuringStart(t *testing.T) {
	for _, join := range []string{"redirect", "bridge"} {
		t.Run(join, func(t *testing.T) { killDuringStart(t, join) })
	}
}

// killDuringStart runs TestRunKilledDuringStart for a value of the key join.
func killDuringStart(t *testing.T, join string) {
	const moments = 12
	n, err := lab.New()
	must(t, err)
	t.Cleanup(n.Close)
	must(t, n.Middle.Do(noNetfilter))
	awaitLinkLocal(t, n)
	before := describe(t, n.Middle)
	settings := fmt.Sprintf("join = %q\n", join)
	path := configure(t, strings.Replace(ownMTU, "[outside]", settings+"mtu = 1400\n[outside]", 1)+settings+acceptAll)
	begun := time.Now()
	p := launch(t, n.Middle, nil, "run", "-c", path)
	p.ready(t)
	starting := time.Since(begun)
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
	for i := range moments {
		p = launch(t, n.Middle, nil, "run", "-c", path)
		time.Sleep(starting * time.Duration(i+1) / moments) // the moment of the kill is what the test varies
		p.signal(t, syscall.SIGKILL)
		p.wait(t)
	}
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", path)
	b.ready(t)
	exchange(t, n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], true, []int{1000})
	b.stop(t)
	sameAs(t, n.Middle, before)
}
