package netdev_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
)

// addVeth makes a veth pair, and returns the indices of both ends.
func addVeth(name, peer string) (index, peerIndex int, err error) {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500}, PeerName: peer}
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, 0, err
	}
	other, err := netlink.LinkByName(peer)
	if err != nil {
		return 0, 0, err
	}
	return veth.Index, other.Attrs().Index, nil
}

func TestLink(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		a, b, err := addVeth("a", "b")
		if err != nil {
			return err
		}
		expect := func(want netdev.Link) {
			if got, err := netdev.ReadLink(a); err != nil || got.Speed == 0 {
				t.Errorf("got %+v, %v", got, err)
			} else if got.Speed = 0; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		expect(netdev.Link{Index: a, Name: "a", MTU: 1500})
		if err := netdev.SetLink(a, true); err != nil {
			return err
		}
		expect(netdev.Link{Index: a, Name: "a", MTU: 1500, Up: true})
		if err := errors.Join(netdev.SetLink(b, true), netdev.SetMTU(a, 1400)); err != nil {
			return err
		}
		expect(netdev.Link{Index: a, Name: "a", MTU: 1400, Up: true, Carrier: true})
		if got, err := netdev.FindLink("b"); err != nil || got.Index != b {
			t.Errorf("got %+v, %v", got, err)
		}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if got, err := netdev.FindLink("bridge"); err != nil || !got.Relays {
			t.Errorf("got %+v, %v", got, err)
		}
		return netdev.SetLink(a, false)
	})
}

// TestMissingLink reads a device that does not exist.
func TestMissingLink(t *testing.T) {
	if _, err := netdev.ReadLink(1 << 30); !errors.Is(err, netdev.ErrMissing) {
		t.Error(err)
	}
	const want = `interface "not-there": no such interface`
	if _, err := netdev.FindLink("not-there"); !errors.Is(err, netdev.ErrMissing) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := netdev.Vacant("not-there"); err != nil {
		t.Error(err)
	}
	const exists = `open tap "lo": device exists and does not belong to fragwall: remove it or choose another name`
	if err := netdev.Vacant("lo"); !errors.Is(err, netdev.ErrExists) || err.Error() != exists {
		t.Errorf("got %v, want %s", err, exists)
	}
}

func TestMissing(t *testing.T) {
	for _, err := range []error{unix.ENODEV, unix.ENOENT, netlink.LinkNotFoundError{}, fmt.Errorf("set: %w", unix.ENODEV)} {
		if !netdev.Gone(err) || netdev.Missing(err) != netdev.ErrMissing {
			t.Errorf("%v is not recognized as a missing link", err)
		}
	}
	if netdev.Gone(unix.EPERM) || netdev.Missing(unix.EPERM) != unix.EPERM || netdev.Missing(nil) != nil {
		t.Error("another error is taken for a missing link")
	}
}
