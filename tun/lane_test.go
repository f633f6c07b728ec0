package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// frame returns an Ethernet frame of an experimental EtherType (IEEE 802
// clause 9.2.3) with a number and a length in bytes.
func frame(number, length int) []byte {
	b := make([]byte, length)
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	binary.BigEndian.PutUint32(b[14:], uint32(number))
	for i := 18; i < length; i++ {
		b[i] = byte(number + i)
	}
	return b
}

// lengths are from the least that a frame has here to the most that a TAP with
// an MTU of 1,500 delivers without tags.
var lengths = []int{18, 60, 61, 64, 1000, 1514}

// through sends frames in bursts that no queue overflows with, and expects
// them at the other end, each in turn.
func (r *rig) through(t *testing.T, frames [][]byte) {
	t.Helper()
	const burst = 100
	for chunk := range slices.Chunk(frames, burst) {
		for _, f := range chunk {
			if err := r.send(Frame{Data: f}); err != nil {
				t.Fatal(err)
			}
		}
		r.expect(t, chunk...)
	}
}

func (r *rig) expect(t *testing.T, frames ...[]byte) {
	t.Helper()
	for i, want := range frames {
		got, err := r.receive()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(got.Data, want) {
			t.Fatalf("frame %d is not what was sent: got %d bytes\n% .40x\nwant %d\n% .40x", i, len(got.Data), got.Data, len(want), want)
		}
	}
}

// TestFramesPass sends more frames than a lane has buffers.
func TestFramesPass(t *testing.T) {
	onEveryLane(t, func(t *testing.T, r *rig) {
		stop := r.forward(unchanged)
		var frames [][]byte
		for i := range 3 * ringBuffers {
			frames = append(frames, frame(i, lengths[i%len(lengths)]))
		}
		r.through(t, frames)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestOthersFramesPass writes frames that were not lent among those that were,
// and more of them at once than a ring takes.
func TestOthersFramesPass(t *testing.T) {
	onEveryLane(t, func(t *testing.T, r *rig) {
		const extra = ringWrites + 100
		stop := r.forward(func(_ Lane, frames []Frame) (out []Frame) {
			for _, f := range frames {
				out = append(out, f)
				number := int(binary.BigEndian.Uint32(f.Data[14:]))
				for i := range extra {
					out = append(out, Frame{Data: frame(number+1+i, lengths[i%len(lengths)])})
				}
			}
			return out
		})
		for round := range 3 {
			var want [][]byte
			first := frame(round*10000, 100)
			want = append(want, first)
			for i := range extra {
				want = append(want, frame(round*10000+1+i, lengths[i%len(lengths)]))
			}
			if err := r.send(Frame{Data: first}); err != nil {
				t.Fatal(err)
			}
			r.expect(t, want...)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestLentFramesLast compares what was lent after it was written.
func TestLentFramesLast(t *testing.T) {
	onEveryLane(t, func(t *testing.T, r *rig) {
		stop := r.forward(func(l Lane, frames []Frame) []Frame {
			for range 2 {
				if refused, err := l.Write(frames); refused != 0 || err != nil {
					t.Error(refused, err)
				}
			}
			return nil
		})
		f := frame(7, 200)
		if err := r.send(Frame{Data: f}); err != nil {
			t.Fatal(err)
		}
		r.expect(t, f, f)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestReply hands frames back to where the lane reads.
func TestReply(t *testing.T) {
	onEveryLane(t, func(t *testing.T, r *rig) {
		stop := r.forward(func(l Lane, frames []Frame) []Frame {
			for _, f := range frames {
				if err := l.Reply(Frame{Data: append([]byte{}, f.Data...)}); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		f := frame(3, 100)
		if err := r.send(Frame{Data: f}); err != nil {
			t.Fatal(err)
		}
		got, err := r.replies()
		if err != nil || !bytes.Equal(got.Data, f) {
			t.Errorf("%v: %.40x", err, got.Data)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if r.from != nil && r.lanes[0].Reply(Frame{Data: f}) == nil {
			t.Error("a closed lane replies")
		}
	})
}

// TestOverflow lets a device's queue run over while nobody reads: what was in
// it comes out in order, and frames go on to pass.
func TestOverflow(t *testing.T) {
	onEveryTAP(t, func(t *testing.T, r *rig) {
		for i := range 4 * ringBuffers {
			if err := r.send(Frame{Data: frame(i, 60)}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Fatal(err)
			}
		}
		stop := r.forward(unchanged)
		last := -1
		for {
			// A frame that marks the end comes through once there is room.
			_ = r.send(Frame{Data: frame(1<<20, 60)})
			f, err := r.receive()
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
	})
}

func TestCloseWakesRead(t *testing.T) {
	onEveryLane(t, func(t *testing.T, r *rig) {
		stop := r.forward(unchanged)
		f := frame(1, 60)
		if err := r.send(Frame{Data: f}); err != nil {
			t.Fatal(err)
		}
		r.expect(t, f) // so that it waits in a read, or soon will
		var group sync.WaitGroup
		for range 4 {
			for _, l := range r.lanes {
				group.Go(func() {
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				})
			}
		}
		group.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		for _, l := range r.lanes {
			if _, err := l.Read(); !errors.Is(err, ErrClosed) {
				t.Errorf("a closed lane reads %v", err)
			}
		}
	})
}

func TestCloseBeforeRead(t *testing.T) {
	onEveryLane(t, func(t *testing.T, r *rig) {
		for _, l := range r.lanes {
			if err := errors.Join(l.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if _, err := l.Read(); !errors.Is(err, ErrClosed) {
				t.Errorf("a closed lane reads %v", err)
			}
		}
	})
}

// TestCloseUnderLoad closes the lanes while frames come without end.
func TestCloseUnderLoad(t *testing.T) {
	onEveryTAP(t, func(t *testing.T, r *rig) {
		stop := r.forward(unchanged)
		done := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					_ = r.send(Frame{Data: frame(i, 60)})
				}
			}
		})
		for range 1000 {
			if _, err := r.receive(); err != nil {
				t.Error(err)
				break
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		close(done)
		flood.Wait()
	})
}

// TestDeviceRemoved removes the device that a lane reads.
func TestDeviceRemoved(t *testing.T) {
	onEveryTAP(t, func(t *testing.T, r *rig) {
		var group sync.WaitGroup
		for _, l := range r.lanes {
			group.Go(func() {
				_, err := l.Read()
				if !errors.Is(err, unix.EBADFD) || !strings.Contains(err.Error(), `read tap "fw-in": the device was removed`) {
					t.Errorf("read: %v", err)
				}
			})
		}
		do(t, r.space, func() error {
			link, err := netlink.LinkByName("fw-in")
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
		group.Wait()
	})
}

// TestRemovalMissed removes a device, and has the ring that reads it not hear
// of that.
func TestRemovalMissed(t *testing.T) {
	r := tapRig(t, TAPConfig{MTU: 1500, Queues: 1}, Ring)
	lanes, err := Ring(r.to, r.to)
	if err != nil {
		t.Fatal(err)
	}
	quiet := lanes[0].(*ringLane)
	quiet.in = r.from.queues[0]
	do(t, r.space, func() error {
		link, err := netlink.LinkByName("fw-in")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	impatience := time.AfterFunc(patience, func() { _ = quiet.Close() })
	defer impatience.Stop()
	if _, err := quiet.Read(); !errors.Is(err, unix.EBADFD) {
		t.Error(err)
	}
}

// TestRefusedFrames writes to a device whose link is down, and up again.
func TestRefusedFrames(t *testing.T) {
	onEveryTAP(t, func(t *testing.T, r *rig) {
		set := func(set func(netlink.Link) error) {
			do(t, r.space, func() error {
				link, err := netlink.LinkByName("fw-out")
				if err != nil {
					return err
				}
				return set(link)
			})
		}
		frames := []Frame{{Data: frame(1, 60)}, {Data: frame(2, 60)}, {Data: frame(3, 60)}}
		written := make(chan struct{})
		write := func(l Lane, lent []Frame) {
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
		for _, l := range r.lanes {
			group.Go(func() {
				lent, err := l.Read()
				for ; err == nil; lent, err = l.Read() {
					write(l, lent)
				}
				if !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
		if err := r.send(Frame{Data: frame(0, 60)}); err != nil {
			t.Fatal(err)
		}
		<-written
		r.expect(t, frames[0].Data, frames[1].Data, frames[2].Data)
		for _, l := range r.lanes {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		group.Wait()
	})
}

// TestMixedOffload tries to join a TAP with offload to one without.
func TestMixedOffload(t *testing.T) {
	from, to := &TAP{TAPConfig: TAPConfig{Name: "a", Offload: true}}, &TAP{TAPConfig: TAPConfig{Name: "b"}}
	for _, lanes := range []func(from, to *TAP) ([]Lane, error){Plain, Ring} {
		if _, err := lanes(from, to); err == nil || err.Error() != `join tap "a" to tap "b": one has offload and the other has not` {
			t.Error(err)
		}
	}
}
