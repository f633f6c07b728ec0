package netdev_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
)

// TestRedirect makes redirects, lists them, and removes them.
func TestRedirect(t *testing.T) {
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		from, to, err := addVeth("a", "b")
		if err != nil {
			return err
		}
		device, err := netlink.LinkByIndex(from)
		if err != nil {
			return err
		}
		expect := func(idle bool, want ...netdev.Redirect) {
			if got, err := netdev.Redirects(device); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			if netdev.IdleClassifier(device) != idle {
				t.Errorf("%d redirects, and idle: %v", len(want), !idle)
			}
		}
		expect(false)
		first := netdev.Redirect{From: from, To: to, Mark: 0xf7000001, Priority: 1}
		if err := first.Add(); err == nil {
			t.Error("a redirect without a classifier")
		}
		if err := netdev.AddClassifier(from); err != nil {
			return err
		}
		expect(true)
		if err := netdev.AddClassifier(from); !errors.Is(err, unix.EEXIST) {
			t.Errorf("a second classifier: %v", err)
		}
		second := netdev.Redirect{From: from, To: to, Priority: 2}
		if err := errors.Join(first.Add(), second.Add()); err != nil {
			return err
		}
		expect(false, first, second)
		if err := first.Remove(); err != nil {
			return err
		}
		expect(false, second)
		if err := netdev.RemoveClassifier(from); err != nil {
			return err
		}
		if err := netdev.RemoveClassifier(from); !errors.Is(err, unix.EINVAL) {
			t.Errorf("second removal of a classifier: %v", err)
		}
		expect(false)
		return nil
	})
}
