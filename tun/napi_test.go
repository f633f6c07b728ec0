package tun

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestNAPIThreads looks at what a TAP is given: by root, in any namespace.
func TestNAPIThreads(t *testing.T) {
	space := namespace(t)
	if os.Getuid() != 0 {
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

// TestSlowNIC has frames leave by a NIC that takes 200 Mbit/s: more come than
// what is in front of it holds, and none is lost.
func TestSlowNIC(t *testing.T) {
	const frames, rate = 4000, 200_000_000 / 8
	onEveryTAP(t, func(t *testing.T, r *rig) {
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
				Rate:       rate, Limit: 64 << 20, Buffer: 16 << 10,
			}); err != nil {
				return err
			}
			j, err := Join(JoinConfig{TAP: "fw-out", NIC: "nic", MTU: r.to.MTU})
			if err == nil {
				t.Cleanup(func() { do(t, r.space, j.Close) })
			}
			return err
		})
		far := openSocket(t, r.space, "host")
		stop := r.forward(unchanged)
		for i := range frames {
			if err := r.send(Frame{Data: frame(i, 1514)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range frames {
			f, err := far.receive()
			if err != nil {
				t.Fatalf("frame %d of %d: %v", i, frames, err)
			}
			if n := binary.BigEndian.Uint32(f.Data[14:]); n != uint32(i) {
				t.Fatalf("frame %d instead of %d", n, i)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
