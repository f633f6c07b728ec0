package uring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/packettest"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
	"fragwall/tun/netdev"
)

// BenchmarkDatagrams measures the CPU time for the fragments of a UDP datagram over IPv4, from the
// lane's Write to the far end of a NIC: each fragment written separately, and all as one frame;
// one datagram at a time, and 16. It reports the time of the lane's thread and that of the TAP's
// NAPI thread.
func BenchmarkDatagrams(b *testing.B) {
	for _, size := range []int{1600, 3000, 8000, 65000} {
		for _, joined := range []bool{false, true} {
			for _, batch := range []int{1, 16} {
				name := fmt.Sprintf("%d bytes/in one piece=%v/batch=%d", size, joined, batch)
				b.Run(name, func(b *testing.B) { benchmarkDatagrams(b, size, batch, joined) })
			}
		}
	}
}

func benchmarkDatagrams(b *testing.B, size, batch int, joined bool) {
	l := openToNIC(b, joined)
	defer l.Close()
	var frames []tun.Frame
	for range batch {
		for _, f := range packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(size)).Fragments(1480) {
			frames = append(frames, tun.Frame{Data: f})
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.enter()
	var thread, napi time.Duration
	for n := -batch; n < b.N; n += batch {
		if n >= 0 && thread == 0 { // the first batch warms up caches
			thread, napi = -threadTime(b), -napiTime(b)
		}
		if refused, err := l.Write(frames); refused > 0 {
			b.Fatal(err)
		}
	}
	thread, napi = thread+threadTime(b), napi+napiTime(b)
	b.ReportMetric(float64(thread.Nanoseconds())/float64(b.N), "lane-ns/op")
	b.ReportMetric(float64(napi.Nanoseconds())/float64(b.N), "napi-ns/op")
	b.ReportMetric(0, "ns/op") // not reported
}

// openToNIC returns a lane whose frames leave through a NIC. The far end drops them.
func openToNIC(b *testing.B, joined bool) *lane {
	b.Helper()
	space := lanetest.Namespace(b)
	var ports [2]*Port
	lanetest.Do(b, space, func() error {
		for i, name := range []string{lanetest.From, lanetest.To} {
			p, err := Open(tun.Config{Name: name, MTU: 1500, Queues: 1, Offload: true})
			if err != nil {
				return err
			}
			b.Cleanup(func() { _ = p.Close() })
			ports[i] = p
		}
		nic := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nic", MTU: 1500}, PeerName: "host"}
		if err := netlink.LinkAdd(nic); err != nil {
			return err
		}
		host, err := netlink.LinkByName("host")
		if err != nil {
			return err
		}
		redirect := netdev.Redirect{From: ports[1].Index(), To: nic.Index, Priority: 1}
		return errors.Join(netlink.LinkSetUp(host), netlink.LinkSetUp(nic), netdev.AddClassifier(redirect.From), redirect.Add())
	})
	ports[1].SetJoined(joined)
	lanes, err := ports[0].Lanes(ports[1])
	if err != nil {
		b.Skip(err)
	}
	return lanes[0].(*lane)
}

func threadTime(b *testing.B) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// napiTime returns the CPU time of the NAPI threads of TAPs with the names of the lane's
// (Documentation/scheduler/sched-stats.rst).
func napiTime(b *testing.B) (total time.Duration) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range processes {
		name, err := os.ReadFile("/proc/" + p.Name() + "/comm")
		if err != nil || !strings.HasPrefix(string(name), "napi/"+lanetest.To) {
			continue
		}
		text, _ := os.ReadFile("/proc/" + p.Name() + "/schedstat")
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			ns, _ := strconv.ParseInt(fields[0], 10, 64)
			total += time.Duration(ns)
		}
	}
	return total
}
