package integration_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// TestBoxIsSilent checks that a box sends no frames on its own. It listens for longer than a new IPv6
// interface needs to detect duplicates of its address, to solicit routers, and to report its groups twice
// (RFC 4861 §6.3.7, RFC 4862 §5.4, RFC 3810 §9.11: within a second each).
func TestBoxIsSilent(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	mute(t, n)
	var sockets [verdict.Sides]*lab.Tap
	for side, h := range n.Hosts {
		sockets[side] = tap(t, h)
	}
	start(t, n, acceptAll)
	quiet := time.Now().Add(3 * time.Second)
	for side, s := range sockets {
		frame, err := s.Receive(quiet)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the %v host received % x, %v", verdict.Side(side), frame, err)
		}
	}
	marker := lab.Between(n.Hosts[verdict.Inside], n.Hosts[verdict.Outside], packettest.Datagram{}.Ethernet(0x88b5, []byte("marker")))
	must(t, sockets[verdict.Inside].Send(marker...))
	expectFrames(t, sockets[verdict.Outside], marker...)
}

// TestSettingsRestored runs a box on NICs with IPv6 addresses and with an MTU that differs from the
// configuration. The box must restore both when it ends.
func TestSettingsRestored(t *testing.T) {
	n, err := lab.New()
	must(t, err)
	t.Cleanup(n.Close)
	awaitLinkLocal(t, n)
	before := describe(t, n.Middle)
	b := &box{Network: n}
	b.process = launch(t, n.Middle, nil, "run", "-c", configure(t, devices+"mtu = 1400\n"+acceptAll))
	b.ready(t)
	expectNone := watch(t, n)
	for _, nic := range []string{lab.InsideNIC, lab.OutsideNIC} {
		if hasLinkLocal(t, n.Middle, nic) {
			t.Errorf("%s still has a link-local address", nic)
		}
	}
	if now := describe(t, n.Middle); now == before {
		t.Error("the box changed no settings, so the test shows nothing")
	}
	expectNone()
	b.stop(t)
	sameAs(t, n.Middle, before)
}

// awaitLinkLocal waits until the NICs have link-local addresses.
func awaitLinkLocal(t *testing.T, n *lab.Network) {
	t.Helper()
	for _, nic := range []string{lab.InsideNIC, lab.OutsideNIC} {
		eventually(t, func() error {
			if !hasLinkLocal(t, n.Middle, nic) {
				return errors.New("no link-local address")
			}
			return nil
		})
	}
}
