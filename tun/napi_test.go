package tun

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNAPIThreads looks at what a TAP is given: by root, in any namespace.
func TestNAPIThreads(t *testing.T) {
	space := namespace(t)
	if os.Getuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("only root may see another namespace's sysfs")
	}
	for _, offload := range []bool{false, true} {
		do(t, space, func() error {
			tap, err := OpenTAP(TAPConfig{Name: "fw", MTU: 1500, Queues: 2, Offload: offload})
			if err != nil {
				return err
			}
			defer tap.Close()
			if tap.threaded != offload {
				t.Errorf("threaded %v with offload %v", tap.threaded, offload)
			}
			return nil
		})
	}
}

// slowNIC joins the second device to a NIC that takes so many bytes a second
// and drops none, and returns its far end.
func (r *rig) slowNIC(t *testing.T, rate uint64) *socket {
	t.Helper()
	do(t, r.space, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nic", MTU: r.to.MTU}, PeerName: "host"}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		host, err := netlink.LinkByName("host")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(host); err != nil {
			return err
		}
		if err := netlink.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: veth.Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       rate, Limit: 64 << 20, Buffer: 256 << 10, // in units of 64 ns
		}); err != nil {
			return err
		}
		j, err := Join(JoinConfig{TAP: "fw-out", NIC: "nic", MTU: r.to.MTU})
		if err == nil {
			t.Cleanup(func() { do(t, r.space, j.Close) })
		}
		return err
	})
	return openSocket(t, r.space, "host")
}

// receiveInOrder receives so many frames, each once. A few may have overtaken
// one another behind the NIC: the timer of its qdisc sends on one CPU and who
// adds to it on another, each into a backlog of its own (net/core/dev.c,
// netif_rx).
func receiveInOrder(t *testing.T, far *socket, frames int) {
	t.Helper()
	seen := make(map[uint32]bool)
	last, overtaken := uint32(0), 0
	for range frames {
		f, err := far.receive()
		if err != nil {
			t.Fatalf("%d of %d frames: %v", len(seen), frames, err)
		}
		n := binary.BigEndian.Uint32(f.Data[14:])
		if seen[n] {
			t.Fatalf("frame %d comes again", n)
		}
		seen[n] = true
		if n < last {
			overtaken++
		}
		last = max(last, n)
	}
	if overtaken > frames/100 {
		t.Errorf("%d of %d frames were overtaken", overtaken, frames)
	}
}

// TestSlowNIC has frames leave by a NIC that takes 400 Mbit/s: more come than
// what is in front of it holds, and none is lost.
func TestSlowNIC(t *testing.T) {
	const frames, rate = 4000, 400_000_000 / 8
	onEveryTAP(t, func(t *testing.T, r *rig) {
		far := r.slowNIC(t, rate)
		stop := r.forward(unchanged)
		for i := range frames {
			if err := r.send(Frame{Data: frame(i, 1514)}); err != nil {
				t.Fatal(err)
			}
		}
		receiveInOrder(t, far, frames)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestStalledNIC has frames leave by a NIC that takes next to none for a while:
// the lane may give up on some, and those that leave do so in order.
func TestStalledNIC(t *testing.T) {
	const frames, rate = 3000, 24_000_000 / 8
	onEveryTAP(t, func(t *testing.T, r *rig) {
		far := r.slowNIC(t, rate)
		var batch []Frame
		for i := range frames {
			batch = append(batch, Frame{Data: frame(i, 1514)})
		}
		lost := make(chan int, frames)
		stop := r.forward(func(l Lane, lent []Frame) []Frame {
			refused, err := l.Write(batch)
			if refused > 0 && !r.to.threaded || err != nil && !errors.Is(err, unix.EAGAIN) {
				t.Errorf("%d refused: %v", refused, err)
			}
			lost <- refused
			return nil
		})
		if err := r.send(Frame{Data: frame(0, 60)}); err != nil {
			t.Fatal(err)
		}
		select {
		case refused := <-lost:
			receiveInOrder(t, far, frames-refused)
		case <-time.After(patience):
			t.Error("the lane waits for the NIC")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestWaitsOnce has a TAP never become ready, as one that is down: 100 looks
// take no 100 times as long as one.
func TestWaitsOnce(t *testing.T) {
	r := tapRig(t, TAPConfig{MTU: 1500, Queues: 1, Offload: true}, Plain)
	do(t, r.space, func() error {
		link, err := netlink.LinkByName("fw-out")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	b := &r.lanes[0].(*plain).backlog
	begun := time.Now()
	for range 100 {
		b.left = 0
		if err := b.take(&Frame{}); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begun); d < stalled || d > 50*stalled {
		t.Errorf("it waited for %v", d)
	}
}

// TestSharedQueue has two lanes write to one queue: what both may write between
// two looks is no more than what one may.
func TestSharedQueue(t *testing.T) {
	r := tapRig(t, TAPConfig{MTU: 1500, Queues: 1, Offload: true}, Plain)
	var from *TAP
	do(t, r.space, func() (err error) {
		from, err = OpenTAP(TAPConfig{Name: "fw-more", MTU: 1500, Queues: 2, Offload: true})
		return err
	})
	defer from.Close()
	lanes, err := Plain(from, r.to)
	if err != nil {
		t.Fatal(err)
	}
	room := 0
	for _, l := range lanes {
		defer l.Close()
		room += l.(*plain).backlog.share
	}
	if one := r.lanes[0].(*plain).backlog.share; len(lanes) != 2 || room != one {
		t.Errorf("%d lanes may write %d bytes, one %d", len(lanes), room, one)
	}
}
