package lanetest

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/packettest"
	"fragwall/tun"
)

// TestTAPLanes checks lanes between TAPs in cases that only a kernel device has.
func TestTAPLanes(t *testing.T, each Each) { run(t, each, tapTests) }

var tapTests = []laneTest{
	{"Overflow", overflow},
	{"CloseUnderLoad", closeUnderLoad},
	{"DeviceRemoved", deviceRemoved},
	{"RefusedFrames", refusedFrames},
	{"SlowNIC", slowNIC},
	{"StalledNIC", stalledNIC},
	{"DatagramsInOne", datagramsInOne},
	{"RefusedDatagram", refusedDatagram},
}

// overflow fills a device's queue before the lane reads. The frames in the queue must be read in
// order, and later frames must still pass.
func overflow(t *testing.T, r *Rig) {
	for i := range 4 * buffers {
		if err := r.Send(tun.Frame{Data: Number(i, 60)}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	stop := r.Forward(Unchanged)
	last := -1
	for {
		// The frame that marks the end passes as soon as there is room.
		_ = r.Send(tun.Frame{Data: Number(1<<20, 60)})
		f, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		number := int(binary.BigEndian.Uint32(f.Data[14:]))
		if number == 1<<20 {
			break
		}
		if number != last+1 {
			t.Fatalf("frame %d after %d", number, last)
		}
		last = number
	}
	if last < 400 {
		t.Errorf("%d frames", last+1)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// closeUnderLoad closes the lanes while frames arrive continuously.
func closeUnderLoad(t *testing.T, r *Rig) {
	stop := r.Forward(Unchanged)
	done := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				_ = r.Send(tun.Frame{Data: Number(i, 60)})
			}
		}
	})
	for range 1000 {
		if _, err := r.Receive(); err != nil {
			t.Error(err)
			break
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	close(done)
	flood.Wait()
}

// deviceRemoved removes the device that a lane reads.
func deviceRemoved(t *testing.T, r *Rig) {
	var group sync.WaitGroup
	for _, l := range r.Lanes {
		group.Go(func() {
			_, err := l.Read()
			if !errors.Is(err, unix.EBADFD) || !strings.Contains(err.Error(), `read tap "fw-in": the device was removed`) {
				t.Errorf("read: %v", err)
			}
		})
	}
	Do(t, r.Space, func() error {
		link, err := netlink.LinkByName(From)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	group.Wait()
}

// refusedDatagram writes the fragments of a datagram and another frame to a device that is down.
// Each fragment must be counted as refused.
func refusedDatagram(t *testing.T, r *Rig) {
	var frames []tun.Frame
	for _, f := range packettest.UDP(Client4, Server4, packettest.Body(5000)).Fragments(1480) {
		frames = append(frames, tun.Frame{Data: f})
	}
	frames = append(frames, tun.Frame{Data: Number(1, 60)})
	r.To.SetJoined(true)
	Do(t, r.Space, func() error {
		link, err := netlink.LinkByName(To)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	refused := make(chan int, 1)
	stop := r.Forward(func(l tun.Lane, _ []tun.Frame) []tun.Frame {
		n, err := l.Write(frames)
		if !errors.Is(err, unix.EIO) {
			t.Error(err)
		}
		refused <- n
		return nil
	})
	if err := r.Send(tun.Frame{Data: Number(0, 60)}); err != nil {
		t.Fatal(err)
	}
	if n := <-refused; n != len(frames) {
		t.Errorf("%d of %d frames were refused", n, len(frames))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// refusedFrames writes to a device that is down, and again after it is up.
func refusedFrames(t *testing.T, r *Rig) {
	set := func(set func(netlink.Link) error) {
		Do(t, r.Space, func() error {
			link, err := netlink.LinkByName(To)
			if err != nil {
				return err
			}
			return set(link)
		})
	}
	frames := []tun.Frame{{Data: Number(1, 60)}, {Data: Number(2, 60)}, {Data: Number(3, 60)}}
	written := make(chan struct{})
	write := func(l tun.Lane, lent []tun.Frame) {
		defer close(written)
		set(netlink.LinkSetDown)
		refused, err := l.Write(append(lent, frames...))
		if refused != 4 || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), `write tap "fw-out"`) {
			t.Errorf("%d refused: %v", refused, err)
		}
		set(netlink.LinkSetUp)
		if refused, err = l.Write(frames); refused != 0 || err != nil {
			t.Errorf("%d refused: %v", refused, err)
		}
	}
	var group sync.WaitGroup
	for _, l := range r.Lanes {
		group.Go(func() {
			lent, err := l.Read()
			for ; err == nil; lent, err = l.Read() {
				write(l, lent)
			}
			if !errors.Is(err, tun.ErrClosed) {
				t.Error(err)
			}
		})
	}
	if err := r.Send(tun.Frame{Data: Number(0, 60)}); err != nil {
		t.Fatal(err)
	}
	<-written
	r.Expect(t, frames[0].Data, frames[1].Data, frames[2].Data)
	for _, l := range r.Lanes {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
}
