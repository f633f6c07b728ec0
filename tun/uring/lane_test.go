package uring

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// TestLanes runs the tests of all lanes and of lanes between TAPs.
func TestLanes(t *testing.T) {
	lanetest.TestLanes(t, lanetest.OnPorts(Open))
	lanetest.TestTAPLanes(t, lanetest.OnPorts(Open))
}

// TestRemovalMissed removes a device while a lane misses the wake-up for it. The lane must still
// find out.
func TestRemovalMissed(t *testing.T) {
	r := lanetest.Open(t, Open, tun.Config{MTU: 1500, Queues: 1})
	lanes, err := r.To.Lanes(r.To)
	if err != nil {
		t.Fatal(err)
	}
	quiet := lanes[0].(*lane) // its multishot read is on the other device
	quiet.In = r.Lanes[0].(*lane).In
	lanetest.Do(t, r.Space, func() error {
		link, err := netlink.LinkByName(lanetest.From)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	timeout := time.AfterFunc(lanetest.Timeout, func() { _ = quiet.Close() })
	defer timeout.Stop()
	if _, err := quiet.Read(); !errors.Is(err, unix.EBADFD) {
		t.Error(err)
	}
}
