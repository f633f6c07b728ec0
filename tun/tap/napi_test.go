package tap

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// TestNAPIThreads checks that a TAP with offload has NAPI threads in any network namespace, if the
// process is root.
func TestNAPIThreads(t *testing.T) {
	space := lanetest.Namespace(t)
	var denied error // only root can mount the sysfs of the namespace
	for _, offload := range []bool{false, true} {
		lanetest.Do(t, space, func() error {
			tap, err := Open(tun.Config{Name: "fw", MTU: 1500, Queues: 2, Offload: offload})
			if err != nil {
				return err
			}
			defer tap.Close()
			for _, f := range tap.Fallbacks() {
				if errors.Is(f.Err, errNoThreads) {
					denied = f.Err
				}
			}
			if tap.threaded != (offload && denied == nil) {
				t.Errorf("threaded %v with offload %v", tap.threaded, offload)
			}
			return nil
		})
	}
	lanetest.Require(t, denied)
}

// TestWaitsOnce uses a TAP that never becomes ready, like one that is down: 100 polls do not
// take 100 times as long as one.
func TestWaitsOnce(t *testing.T) {
	r := lanetest.Open(t, Open, tun.Config{MTU: 1500, Queues: 1, Offload: true})
	lanetest.Do(t, r.Space, func() error {
		link, err := netlink.LinkByName(lanetest.To)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	b := &r.Lanes[0].(*lane).backlog
	begun := time.Now()
	for range 100 {
		b.left = 0
		if err := b.Take(make([]tun.Frame, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begun); d < stalled || d > 50*stalled {
		t.Errorf("waited for %v", d)
	}
}

// TestSharedQueue uses two lanes that write to one queue: both together may write no more
// between two polls than one lane may.
func TestSharedQueue(t *testing.T) {
	r := lanetest.Open(t, Open, tun.Config{MTU: 1500, Queues: 1, Offload: true})
	from := lanetest.OpenPort(t, r.Space, Open, "fw-more", tun.Config{MTU: 1500, Queues: 2, Offload: true})
	lanes, err := from.Lanes(r.To)
	if err != nil {
		t.Fatal(err)
	}
	room := 0
	for _, l := range lanes {
		defer l.Close()
		room += l.(*lane).backlog.share
	}
	if one := r.Lanes[0].(*lane).backlog.share; len(lanes) != 2 || room != one {
		t.Errorf("%d lanes may write %d bytes, one may write %d", len(lanes), room, one)
	}
}
