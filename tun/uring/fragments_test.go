package uring

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
)

// collecting is a rig whose first port collects the fragments that arrive on a NIC, and
// receives all other frames from it.
type collecting struct {
	*lanetest.Rig
	nic  int
	host *lanetest.Socket // the far end of the NIC
}

func openCollecting(t *testing.T, open func(tun.Config) (*Port, error), c tun.Config) *collecting {
	t.Helper()
	r := &collecting{Rig: lanetest.Open(t, open, c)}
	for _, f := range r.From.Fallbacks() {
		lanetest.Require(t, f.Err)
	}
	lanetest.Do(t, r.Space, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nic", MTU: 9000}, PeerName: "host"}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		host, err := netlink.LinkByName("host")
		if err != nil {
			return err
		}
		r.nic = veth.Index
		redirect := netdev.Redirect{From: veth.Index, To: r.From.Index(), Priority: 1}
		return errors.Join(
			netdev.DisableIPv6(veth), netdev.DisableIPv6(host), netlink.LinkSetUp(veth), netlink.LinkSetUp(host),
			netdev.AddClassifier(veth.Index), redirect.Add(), r.From.Collect(veth.Index),
		)
	})
	r.host = lanetest.OpenSocket(t, r.Space, "host")
	return r
}

// queued returns the number of frames that went through the queues of the port.
func (r *collecting) queued() (n int) {
	for _, l := range r.Lanes {
		n += int(l.(*lane).queue.In())
	}
	return n
}

// received is a frame that a lane read.
type received struct {
	lane  int
	frame tun.Frame
}

// read makes all lanes read, each in a goroutine, until they are closed. It can run a function
// between two reads.
func (r *collecting) read(between func(l tun.Lane)) (frames <-chan received, wait func() error) {
	out, ends := make(chan received, 1<<16), make(chan error, len(r.Lanes))
	for i, l := range r.Lanes {
		go func() {
			for {
				lent, err := l.Read()
				for _, f := range lent {
					out <- received{i, tun.Frame{Data: bytes.Clone(f.Data), Offload: f.Offload}}
				}
				if err != nil && !errors.Is(err, tun.ErrHeld) {
					ends <- err
					return
				}
				between(l)
			}
		}()
	}
	return out, func() error {
		var errs []error
		for _, l := range r.Lanes {
			errs = append(errs, l.Close())
		}
		for range r.Lanes {
			if err := <-ends; !errors.Is(err, tun.ErrClosed) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
}

// mixture returns n frames of a sender: whole packets, fragments of many sizes, with and without
// tags, and frames that are not IP, between several addresses. All frames differ.
func mixture(random *rand.Rand, sender, n int) (frames [][]byte) {
	for i := 0; len(frames) < n; i++ {
		host := byte(random.IntN(4))
		src4, dst4 := netip.AddrFrom4([4]byte{10, byte(sender), 0, host}), netip.AddrFrom4([4]byte{10, 9, 9, 9})
		src6, dst6 := netip.AddrFrom16([16]byte{0: 0xfd, 1: byte(sender), 15: host}), netip.AddrFrom16([16]byte{0: 0xfd, 15: 9})
		d := packettest.UDP(netip.AddrPortFrom(src4, uint16(i)), netip.AddrPortFrom(dst4, uint16(i>>16)), packettest.Body(8+random.IntN(4000)))
		if random.IntN(2) == 0 {
			d = packettest.UDP(netip.AddrPortFrom(src6, uint16(i)), netip.AddrPortFrom(dst6, uint16(i>>16)), packettest.Body(8+random.IntN(4000)))
		}
		d.ID = uint32(i)
		d.Tags = [][]packet.Tag{nil, nil, nil, {{TPID: 0x8100, TCI: 7}}, {{TPID: 0x88a8, TCI: 8}, {TPID: 0x8100, TCI: 7}}}[random.IntN(5)]
		switch random.IntN(8) {
		case 0:
			frames = append(frames, lanetest.Number(sender<<24|i, 60+random.IntN(100)))
		case 1, 2:
			d.Payload = d.Payload[:min(len(d.Payload), 1000)]
			frames = append(frames, d.Frame())
		default:
			frames = append(frames, d.Fragments(64+8*random.IntN(160))...)
		}
	}
	return frames[:n]
}

// sent is the position of a frame in the sequence of its sender.
type sent struct{ sender, number int }

// TestFragmentsKeepOrder has senders on several CPUs send tens of thousands of whole packets and
// fragments at random, while lanes are slow, fast and held. A lane receives everything that
// each sender sent to it, in order and byte for byte. The rings are large, or so small that
// they are always full.
func TestFragmentsKeepOrder(t *testing.T) {
	const senders, frames = 2, 15000
	for name, test := range map[string]struct {
		open func(tun.Config) (*Port, error)
		tun.Config
	}{
		"one large ring":  {Open, tun.Config{MTU: 1500, Queues: 1, Fragments: 8192}},
		"two large rings": {Open, tun.Config{MTU: 1500, Queues: 2, Fragments: 8192, Offload: true}},
		"a small ring":    {Open, tun.Config{MTU: 1500, Queues: 1, Fragments: 64, Offload: true}},
		"handed over":     {openAgain, tun.Config{MTU: 1500, Queues: 2, Fragments: 512, Offload: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := openCollecting(t, test.open, test.Config)
			var taken atomic.Int64 // frames that the lanes have read
			got, wait := r.read(func(l tun.Lane) {
				switch rand.IntN(50) {
				case 0:
					time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond) // slow, for a while
				case 1:
					_ = l.Hold()
				}
			})
			places := map[string]sent{}
			var all [senders][][]byte
			whole := 0
			for sender := range all {
				all[sender] = mixture(rand.New(rand.NewPCG(uint64(sender), 1)), sender, frames)
				for i, f := range all[sender] {
					places[string(f)] = sent{sender, i}
					if !isFragment(f) {
						whole++
					}
				}
			}
			if len(places) != senders*frames {
				t.Fatalf("%d distinct frames, want %d", len(places), senders*frames)
			}
			var group sync.WaitGroup
			var outside atomic.Int64 // frames that were sent
			for sender := range all {
				group.Go(func() {
					pin(t, sender%runtime.NumCPU())
					for _, f := range all[sender] {
						for outside.Load()-taken.Load() > 500 && !t.Failed() {
							runtime.Gosched()
						}
						outside.Add(1)
						if err := r.host.Send(tun.Frame{Data: f}); err != nil {
							t.Error(err)
							taken.Add(1)
						}
					}
				})
			}
			last := map[[2]int]int{} // the last number, by lane and sender
			for n := range senders * frames {
				select {
				case f := <-got:
					taken.Add(1)
					at, found := places[string(f.frame.Data)]
					if !found {
						t.Fatalf("frame %d was not sent: % .60x", n, f.frame.Data)
					}
					key := [2]int{f.lane, at.sender}
					if before, any := last[key]; any && before >= at.number {
						t.Fatalf("lane %d: frame %d of sender %d arrived after %d", f.lane, at.number, at.sender, before)
					}
					last[key] = at.number
				case <-time.After(lanetest.Timeout):
					t.Fatalf("%d of %d frames arrived", n, senders*frames)
				}
			}
			group.Wait()
			if err := wait(); err != nil {
				t.Error(err)
			}
			if queued := r.queued(); queued < whole || queued == senders*frames {
				t.Errorf("%d frames went through the queues; %d are whole packets", queued, whole)
			} else {
				t.Logf("%d of %d fragments went through rings", senders*frames-queued, senders*frames-whole)
			}
		})
	}
}

func isFragment(frame []byte) bool {
	var p packet.Parsed
	return p.Decode(frame) == verdict.Passed && p.Fragment.Present
}

// pin binds the goroutine to one CPU permanently, so that the frames it sends stay in order. Its
// thread ends with it.
func pin(t *testing.T, cpu int) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Logf("pin to CPU %d: %v", cpu, err)
	}
}

// TestFragmentsAreTheSame sends unusual frames on both paths: through the ring, if it accepts
// them, and through the queue.
func TestFragmentsAreTheSame(t *testing.T) {
	large := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(8000))
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(3000))
	d6 := packettest.UDP(lanetest.Client6, lanetest.Server6, packettest.Body(3000))
	tagged := d
	tagged.Tags = []packet.Tag{{TPID: 0x8100, TCI: 0xe007}}
	partial := tun.Frame{Data: d.Fragments(1440)[0], Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumStart: 34, ChecksumOffset: 6}}
	frames := map[string]tun.Frame{
		"first":      {Data: d.Fragments(1440)[0]},
		"last":       {Data: d.Fragments(1440)[2]},
		"IPv6":       {Data: d6.Fragments(1440)[1]},
		"tag":        {Data: tagged.Fragments(1440)[1]},
		"trailer":    {Data: append(d.Fragments(1440)[2], make([]byte, 30)...)},
		"short":      {Data: d.Fragments(8)[3]},
		"large":      {Data: large.Fragments(6000)[0]},
		"partial":    partial,
		"no payload": {Data: d.Fragments(1440)[1][:14+20]},
		"cut off":    {Data: d6.Fragments(1440)[1][:14+40+4]},
		"whole":      {Data: d.Frame()[:1000]},
	}
	for _, offload := range []bool{false, true} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			r := openCollecting(t, Open, tun.Config{MTU: 9000, Queues: 1, Fragments: 64, Offload: offload})
			busy := make(chan struct{}) // keeps the lane busy, and so awake
			got, wait := r.read(func(tun.Lane) { <-busy })
			next := func() tun.Frame {
				t.Helper()
				select {
				case f := <-got:
					return f.frame
				case <-time.After(lanetest.Timeout):
					t.Fatal("no frame arrived")
					panic("unreachable")
				}
			}
			beside := 0
			for name, f := range frames {
				if f.Offload.Flags != 0 && !offload {
					continue
				}
				var both [2]tun.Frame
				for i, nic := range []int{r.nic, 0} {
					lanetest.Do(t, r.Space, func() error { return r.From.Collect(nic) })
					if err := r.host.Send(tun.Frame{Data: lanetest.Number(1, 60)}); err != nil { // wakes the lane
						t.Fatal(err)
					}
					next()
					before := r.queued()
					if err := r.host.Send(f); err != nil {
						t.Fatal(err)
					}
					beside += 1 - (r.queued() - before)
					busy <- struct{}{}
					both[i] = next()
					busy <- struct{}{}
				}
				if !bytes.Equal(both[0].Data, both[1].Data) || both[0].Offload != both[1].Offload || !bytes.Equal(both[0].Data, f.Data) {
					t.Errorf("%s: %d bytes, %+v, and through the queue %d bytes, %+v", name, len(both[0].Data), both[0].Offload, len(both[1].Data), both[1].Offload)
				}
			}
			// All except those that are large, partial, cut off or whole.
			if want := len(frames) - 4; beside != want {
				t.Errorf("%d fragments went through the ring, want %d", beside, want)
			}
			close(busy)
			if err := wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOverloadedRingKeepsDatagramsWhole sends more fragments than the ring and the queue hold,
// those of 20 datagrams interleaved, while the lane does not read. The large ring holds all
// fragments that are not refused, the small one only a few.
func TestOverloadedRingKeepsDatagramsWhole(t *testing.T) {
	const together, fragments, datagrams = 20, 3, 200 * 20
	for _, records := range []int{8192, 256} {
		t.Run(fmt.Sprint(records), func(t *testing.T) {
			r := openCollecting(t, Open, tun.Config{MTU: 1500, Queues: 1, Fragments: records})
			busy := make(chan struct{})
			got, wait := r.read(func(tun.Lane) { <-busy })
			if err := r.host.Send(tun.Frame{Data: lanetest.Number(1, 60)}); err != nil {
				t.Fatal(err)
			}
			<-got
			d := packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(4000))
			slowest := time.Duration(0)
			for id := uint32(0); id < datagrams; id += together {
				begun := time.Now()
				for fragment := range fragments {
					for i := range uint32(together) {
						d.ID = id + i
						if err := r.host.Send(tun.Frame{Data: d.Fragments(1400)[fragment]}); err != nil {
							t.Fatal(err)
						}
					}
				}
				slowest = max(slowest, time.Since(begun))
			}
			close(busy)
			shed := int(r.Lanes[0].Shed())
			if shed == 0 || shed%fragments != 0 {
				t.Errorf("%d fragments were refused", shed)
			}
			came := map[uint32]int{}
			last := -1
			for range datagrams*fragments - shed {
				select {
				case f := <-got:
					var p packet.Parsed
					if why := p.Decode(f.frame.Data); why != verdict.Passed {
						t.Fatal(why)
					}
					came[p.Fragment.ID]++
					at := int(p.Fragment.ID)/together*fragments + p.Fragment.Offset/1400
					if at < last {
						t.Errorf("batch %d arrived after %d", at, last)
					}
					last = at
				case <-time.After(lanetest.Timeout):
					t.Fatalf("%d datagrams arrived", len(came))
				}
			}
			for id, n := range came {
				if n != fragments && slowest < 200*time.Millisecond { // less than the time that a decision is valid
					t.Errorf("%d of %d fragments of datagram %d arrived", n, fragments, id)
				}
			}
			if queued := r.queued(); cmp.Compare(queued, 2) > 0 != (records == 256) {
				t.Errorf("%d frames went through the queue", queued)
			}
			if err := wait(); err != nil {
				t.Error(err)
			}
			if missed, err := r.From.Missed(); err != nil || missed != 0 {
				t.Errorf("%d missed, %v", missed, err)
			}
		})
	}
}
