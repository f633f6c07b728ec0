package lanetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/tun"
	"fragwall/tun/netdev"
	"fragwall/tun/ufo"
)

// slowNIC joins the second device to a NIC that sends rate bytes per second and drops none. It
// returns a socket at the far end of the NIC.
func (r *Rig) slowNIC(t *testing.T, rate uint64) *Socket {
	t.Helper()
	Do(t, r.Space, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nic", MTU: r.MTU}, PeerName: "host"}
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
		if err := netdev.DisableIPv6(veth); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(veth); err != nil {
			return err
		}
		redirect := netdev.Redirect{From: r.To.Index(), To: veth.Index, Priority: 1}
		return errors.Join(netdev.AddClassifier(redirect.From), redirect.Add())
	})
	return OpenSocket(t, r.Space, "host")
}

// datagrams returns the fragments of UDP datagrams with different sizes, fragment sizes, tags and
// IP versions, and frames that are not IP. Some of the datagrams are such that the kernel can
// make their fragments.
func datagrams() (list [][]tun.Frame) {
	add := func(fragments ...[]byte) {
		var frames []tun.Frame
		for _, f := range fragments {
			frames = append(frames, tun.Frame{Data: f})
		}
		list = append(list, frames)
	}
	for i, size := range []int{1480, 1473, 2952, 5000, 8000, 65507} {
		for _, tags := range [][]packet.Tag{nil, {{TPID: 0x8100, TCI: 10}}, {{TPID: 0x88a8, TCI: 5}, {TPID: 0x8100, TCI: 20}}} {
			d := packettest.UDP(Client4, Server4, packettest.Body(size))
			d.Tags, d.ID = tags, uint32(i)
			add(d.Fragments(1480)...)
			add(d.Fragments(1032)...)
			d.DontFragment = true
			add(d.Fragments(1480)...)
			d = packettest.UDP(Client6, Server6, packettest.Body(size))
			d.Tags, d.ID = tags, uint32(i)
			add(d.Fragments(1448)...)
		}
		add(Number(i, 100))
	}
	return list
}

// datagramsInOne writes fragments to a NIC. The lane writes those that the kernel can make as one
// frame, and all must arrive unchanged.
func datagramsInOne(t *testing.T, r *Rig) {
	var frames []tun.Frame
	writes := 0
	for _, d := range datagrams() {
		frames = append(frames, d...)
		if _, found := ufo.Find(d); found && r.Offload {
			writes++
		} else {
			writes += len(d)
		}
	}
	if r.Offload && writes == len(frames) {
		t.Fatal("the kernel can make the fragments of no datagram")
	}
	far := r.slowNIC(t, 1_000_000_000)
	r.To.SetJoined(true)
	link := func() (link netlink.Link) {
		Do(t, r.Space, func() (err error) {
			link, err = netlink.LinkByName(To)
			return err
		})
		return link
	}
	before := link().Attrs().Statistics.RxPackets
	written := make(chan error, 1)
	stop := r.Forward(func(l tun.Lane, _ []tun.Frame) []tun.Frame {
		_, err := l.Write(frames)
		written <- err
		return nil
	})
	if err := r.Send(tun.Frame{Data: Number(0, 60)}); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for i, want := range frames {
		got, err := far.Receive()
		if err != nil {
			t.Fatalf("frame %d of %d: %v", i, len(frames), err)
		}
		if data := got.Data; !bytes.Equal(data, want.Data) && !bytes.Equal(withoutTag(want.Data), data) {
			t.Fatalf("frame %d differs: got %d bytes\n% .60x\nwant %d\n% .60x", i, len(data), data, len(want.Data), want.Data)
		}
	}
	if n := link().Attrs().Statistics.RxPackets - before; n != uint64(writes) {
		t.Errorf("%d frames were written, want %d", n, writes)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// withoutTag returns a frame without its outermost tag, which the kernel passes to a packet socket
// separately.
func withoutTag(frame []byte) []byte {
	return append(append([]byte{}, frame[:12]...), frame[16:]...)
}

// receiveInOrder receives a number of frames, each once. A few may be out of order: the timer of
// the NIC's queueing discipline sends on one CPU, the writer on another, and each CPU has its own
// backlog at the far end (net/core/dev.c, netif_rx).
func receiveInOrder(t *testing.T, far *Socket, frames int) {
	t.Helper()
	seen := make(map[uint32]bool)
	last, overtaken := uint32(0), 0
	for range frames {
		f, err := far.Receive()
		if err != nil {
			t.Fatalf("%d of %d frames: %v", len(seen), frames, err)
		}
		n := binary.BigEndian.Uint32(f.Data[14:])
		if seen[n] {
			t.Fatalf("frame %d arrived twice", n)
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

// slowNIC sends frames through a NIC with 400 Mbit/s, more than the queues before it hold. None
// must be lost.
func slowNIC(t *testing.T, r *Rig) {
	const frames, rate = 4000, 400_000_000 / 8
	far := r.slowNIC(t, rate)
	stop := r.Forward(Unchanged)
	for i := range frames {
		if err := r.Send(tun.Frame{Data: Number(i, 1514)}); err != nil {
			t.Fatal(err)
		}
	}
	receiveInOrder(t, far, frames)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// stalledNIC sends frames through a NIC that is so slow that the lane may refuse some. The others
// must leave in order.
func stalledNIC(t *testing.T, r *Rig) {
	const frames, rate = 3000, 24_000_000 / 8
	far := r.slowNIC(t, rate)
	var batch []tun.Frame
	for i := range frames {
		batch = append(batch, tun.Frame{Data: Number(i, 1514)})
	}
	lost := make(chan int, frames)
	stop := r.Forward(func(l tun.Lane, lent []tun.Frame) []tun.Frame {
		refused, err := l.Write(batch)
		if refused > 0 && !r.Offload || err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Errorf("%d refused: %v", refused, err)
		}
		lost <- refused
		return nil
	})
	if err := r.Send(tun.Frame{Data: Number(0, 60)}); err != nil {
		t.Fatal(err)
	}
	select {
	case refused := <-lost:
		receiveInOrder(t, far, frames-refused)
	case <-time.After(Timeout):
		t.Error("the lane waits for the NIC")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
