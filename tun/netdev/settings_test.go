package netdev_test

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
)

// TestSettings changes a device's settings, and reads them by sysctl.
func TestSettings(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		index, _, err := addVeth("a", "b")
		if err != nil {
			return err
		}
		device, err := netlink.LinkByIndex(index)
		if err != nil {
			return err
		}
		if err := errors.Join(netdev.DisableIPv6(device), netdev.StrictReversePath(device)); err != nil {
			return err
		}
		for name, want := range map[string]string{netdev.IPv6Switch("a"): "1", "net/ipv4/conf/a/rp_filter": "1"} {
			if got, err := netdev.Sysctl(name); got != want || err != nil {
				t.Errorf("%s is %q, %v; want %q", name, got, err, want)
			}
		}
		return nil
	})
}

// TestOffloads uses a driver without large receive offload, which is not an error.
func TestOffloads(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		if _, _, err := addVeth("a", "b"); err != nil {
			return err
		}
		if on, err := netdev.LRO("a"); on || err != nil {
			t.Errorf("on: %v, %v", on, err)
		}
		if err := errors.Join(netdev.SetLRO("a", false), netdev.DisableGRO("a")); err != nil {
			t.Error(err)
		}
		if _, err := netdev.LRO("not-there"); err == nil || !netdev.Gone(err) {
			t.Errorf("a device that does not exist: %v", err)
		}
		return nil
	})
}
