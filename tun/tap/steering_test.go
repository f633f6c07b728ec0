package tap

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

// steered is a TAP with four queues. A packet socket sends frames into it.
type steered struct {
	*TAP
	near *lanetest.Socket
}

func openSteered(t *testing.T) *steered {
	t.Helper()
	s := &steered{}
	space := lanetest.Namespace(t)
	lanetest.Do(t, space, func() (err error) {
		s.TAP, err = Open(tun.Config{Name: "fw", MTU: 1500, Queues: 4})
		return err
	})
	t.Cleanup(func() { _ = s.Close() })
	lanetest.Require(t, noSteering(s.TAP))
	s.near = lanetest.OpenSocket(t, space, "fw")
	return s
}

// noSteering returns the error because of which a TAP has one queue instead of the configured
// number, or nil if it has all queues.
func noSteering(t *TAP) error {
	for _, f := range t.fallbacks {
		if errors.Is(f.Err, errNoSteering) {
			return f.Err
		}
	}
	return nil
}

// queueOf returns the queue into which the kernel puts a frame.
func (s *steered) queueOf(t *testing.T, frame []byte) int {
	t.Helper()
	if err := s.near.Send(tun.Frame{Data: frame}); err != nil {
		t.Fatal(err)
	}
	waiting := make([]unix.PollFd, len(s.queues))
	for i, fd := range s.queues {
		waiting[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	if n, err := unix.Poll(waiting, int(lanetest.Timeout.Milliseconds())); n != 1 || err != nil {
		t.Fatalf("%d queues have a frame: %v", n, err)
	}
	at := slices.IndexFunc(waiting, func(p unix.PollFd) bool { return p.Revents != 0 })
	if _, err := unix.Read(s.queues[at], make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	q := s.queue(at)
	q.Take(1)
	return at
}

// kinds returns frames of many kinds between two addresses, in both directions.
func kinds(a, b netip.Addr, number int) (frames [][]byte) {
	service := packet.Tag{TPID: unix.ETH_P_8021AD, TCI: uint16(number)}
	customer := packet.Tag{TPID: unix.ETH_P_8021Q, TCI: uint16(number + 1)}
	for _, way := range [][2]netip.Addr{{a, b}, {b, a}} {
		src := netip.AddrPortFrom(way[0], uint16(1024+number))
		dst := netip.AddrPortFrom(way[1], uint16(60000-number))
		for _, tags := range [][]packet.Tag{nil, {customer}, {service}, {service, customer}, {customer, customer}} {
			d := packettest.UDP(src, dst, packettest.Body(3000))
			d.Tags, d.ID = tags, uint32(number)
			frames = append(frames, d.Fragments(1440)...)
			// Fragments after the first may claim any other protocol.
			d.Protocol = packet.ProtocolTCP
			frames = append(frames, d.Fragment(1440, d.Payload[1440:2880], true))
			d = packettest.TCP(src, dst, 0)
			d.Tags = tags
			frames = append(frames, d.Frame())
		}
	}
	return frames
}

// TestSteering checks that all frames between two addresses use one queue, and that many such
// pairs use all queues.
func TestSteering(t *testing.T) {
	s := openSteered(t)
	const pairs = 200
	for _, family := range []struct {
		name string
		a, b netip.Addr
	}{
		{"IPv4", netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1")},
		{"IPv6", netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")},
	} {
		t.Run(family.name, func(t *testing.T) {
			used := make([]int, len(s.queues))
			a, b := family.a, family.b
			for number := range pairs {
				frames := kinds(a, b, number)
				want := s.queueOf(t, frames[0])
				used[want]++
				for _, f := range frames[1:] {
					if at := s.queueOf(t, f); at != want {
						t.Fatalf("%v and %v: queue %d has the first frame, and %d has % .64x", a, b, want, at, f)
					}
				}
				if number%2 == 0 {
					a = a.Next()
				}
				b = b.Next()
			}
			// A queue should have 50. The probability that it has less than 15 by chance is
			// below 1 in 10^9.
			if slices.Min(used) < 15 {
				t.Errorf("the queues have %d pairs", used)
			}
		})
	}
}

// TestSteeringOfOthers checks that frames without addresses that the program can read use the
// first queue.
func TestSteeringOfOthers(t *testing.T) {
	s := openSteered(t)
	d := packettest.UDP(lanetest.Client4, lanetest.Server4, nil)
	whole := d.Frame()
	d.Tags = []packet.Tag{{TPID: 0x8100}, {TPID: 0x8100}, {TPID: 0x8100}}
	for name, f := range map[string][]byte{
		"not IP":       lanetest.Number(1, 60),
		"802.3 length": d.Ethernet(100, make([]byte, 100)),
		"three tags":   d.Frame(),
		"short IPv4":   whole[:14+19],
		"short IPv6":   packettest.UDP(lanetest.Client6, lanetest.Server6, nil).Frame()[:14+39],
		"cut-off tag":  whole[:12:12],
	} {
		if f = append(f, make([]byte, max(0, 14-len(f)))...); s.queueOf(t, f) != 0 {
			t.Errorf("%s: not in the first queue", name)
		}
	}
}

// TestOneQueueWithoutSteering denies bpf(2), as container runtimes do.
func TestOneQueueWithoutSteering(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EPERM:  "load eBPF: operation not permitted: CAP_BPF is missing, or a seccomp profile denies bpf(2)",
		unix.ENOSYS: "load eBPF: function not implemented: the kernel is built without it",
	} {
		for _, offload := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/offload=%v", errno, offload), func(t *testing.T) {
				before := lanetest.Descriptors(t)
				lanetest.Do(t, lanetest.Namespace(t), func() error {
					if err := lanetest.Deny(unix.SYS_BPF, errno); err != nil {
						return err
					}
					tap, err := Open(tun.Config{Name: "fw", MTU: 1500, Queues: 4, Offload: offload, Fragments: 64})
					if err != nil {
						return err
					}
					if err := noSteering(tap); err == nil || !strings.HasSuffix(err.Error(), want) {
						t.Errorf("got %v, want %s", err, want)
					}
					if tap.rings != nil || !slices.ContainsFunc(tap.fallbacks, func(f tun.Fallback) bool { return f.Message == noRings(nil).Message }) {
						t.Errorf("rings %v, %v", tap.rings, tap.fallbacks)
					}
					if len(tap.queues) != 1 || tap.config.Queues != 1 {
						t.Errorf("%d queues", len(tap.queues))
					}
					return tap.Close()
				})
				// Only the descriptor of the namespace is left.
				if n := lanetest.Descriptors(t); n != before+1 {
					t.Errorf("%d descriptors, %d before", n, before)
				}
			})
		}
	}
}

// TestBPFIsEnough opens a TAP with CAP_BPF, but without CAP_SYS_ADMIN, which includes it, and
// without CAP_PERFMON, which lifts restrictions on programs.
func TestBPFIsEnough(t *testing.T) {
	openFlooded(t, forever) // skips the test if there is no eBPF
	lanetest.Do(t, lanetest.Namespace(t), func() error {
		if err := dropCapabilities(unix.CAP_SYS_ADMIN, unix.CAP_PERFMON); err != nil {
			return err
		}
		tap, err := Open(tun.Config{Name: "fw", MTU: 1500, Queues: 4, Fragments: 64})
		if err != nil {
			return err
		}
		for _, f := range tap.fallbacks {
			t.Errorf("%s: %v", f.Message, f.Err)
		}
		return tap.Close()
	})
}

// BenchmarkQueues measures the kernel's CPU time for a frame that enters the queue of a TAP, and
// for a frame that is written to the TAP and then dropped: with four queues, selected by addresses
// or by the kernel's hash, and with one queue.
func BenchmarkQueues(b *testing.B) {
	for _, c := range []struct {
		name   string
		queues int
		detach bool // the steering program
	}{{"by addresses", 4, false}, {"by the kernel", 4, true}, {"one", 1, false}} {
		space := lanetest.Namespace(b)
		var tap *TAP
		lanetest.Do(b, space, func() (err error) {
			tap, err = Open(tun.Config{Name: "fw", MTU: 1500, Queues: c.queues})
			return err
		})
		defer tap.Close()
		if err := noSteering(tap); err != nil {
			b.Skip(err)
		}
		if c.detach {
			if err := unix.IoctlSetPointerInt(tap.queues[0], unix.TUNSETSTEERINGEBPF, -1); err != nil {
				b.Fatal(err)
			}
		}
		near := int(lanetest.OpenSocket(b, space, "fw").File.Fd())
		for _, family := range []struct {
			name     string
			src, dst netip.AddrPort
		}{{"IPv4", lanetest.Client4, lanetest.Server4}, {"IPv6", lanetest.Client6, lanetest.Server6}} {
			bare := packettest.UDP(family.src, family.dst, packettest.Body(64)).Frame()
			b.Run("in/"+family.name+"/"+c.name, func(b *testing.B) {
				frame := append(make([]byte, tun.HeaderSize), bare...)
				timeThread(b, func() error {
					_, err := unix.Write(near, frame)
					return err
				}, tap.drain)
			})
			b.Run("out/"+family.name+"/"+c.name, func(b *testing.B) {
				timeThread(b, func() error {
					_, err := unix.Write(tap.queues[0], bare)
					return err
				}, func() {})
			})
		}
	}
}

// timeThread reports the thread's CPU time per operation, which does not include other processes.
// After every 1,000 operations it calls cleanUp, whose time is not included.
func timeThread(b *testing.B, operate func() error, cleanUp func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const between = 1000
	run := func(operations int) time.Duration {
		defer cleanUp()
		begun := threadTime(b)
		for range operations {
			if err := operate(); err != nil {
				b.Fatal(err)
			}
		}
		return threadTime(b) - begun
	}
	run(between) // warms up caches
	var took time.Duration
	for done := 0; done < b.N; done += between {
		took += run(min(between, b.N-done))
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(0, "ns/op") // not reported
}

func threadTime(b *testing.B) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// drain discards the frames in the queues.
func (t *TAP) drain() {
	b := make([]byte, 1<<16)
	for i, fd := range t.queues {
		for {
			if _, err := unix.Read(fd, b); err != nil {
				break
			}
		}
		q := t.queue(i)
		q.Empty(q.In())
	}
}
