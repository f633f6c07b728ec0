package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readyLine is the output of a receiver when it is listening.
const readyLine = "ready"

// load describes the task of a sender or receiver process, which receives it as JSON.
type load struct {
	Role    string         // a key of roles
	Addr    netip.AddrPort // destination of a sender, local address of a receiver
	Size    int            // bytes of UDP payload
	Seconds float64        // time limit; a receiver ends earlier if datagrams stop arriving
	Rate    float64        // maximum number of datagrams per second; 0 means no limit
}

// generated is the result of a sender or receiver process, which prints it as JSON.
type generated struct {
	Datagrams uint64
	Seconds   float64
	P50, P99  float64 // of round-trip times, in microseconds
}

// roles maps the names of roles to their functions.
var roles = map[string]func(l *load) (generated, error){
	"send": send, "receive": receive, "echo": echo, "ping": ping,
}

// generate runs a load, which spec describes as JSON. Its thread makes raw system calls, about which
// the Go scheduler is not informed, because no other goroutine has to run.
func generate(spec string) error {
	var l load
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		return fmt.Errorf("load %q: %w", spec, err)
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	g, err := roles[l.Role](&l)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Role, err)
	}
	return json.NewEncoder(os.Stdout).Encode(g)
}

const (
	burst = 64 // datagrams per system call

	receiveBuffer = 64 << 20 // bytes
	sendBuffer    = 8 << 20
	// nap is the receiver's pause between reads. Because of it, the sender and the middle do not
	// spend CPU time on waking the receiver.
	nap = 500 * time.Microsecond
	// silence is the time without datagrams after which a receiver ends, if any have arrived.
	silence = 400 * time.Millisecond
	// answerTimeout is the time limit for a round trip.
	answerTimeout = 300 * time.Millisecond
)

// openSocket opens a UDP socket that fragments datagrams larger than the MTU, and returns a as a
// socket address.
func openSocket(a netip.AddrPort) (fd int, address unix.Sockaddr, err error) {
	domain, level, discover, never := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if a.Addr().Is6() {
		domain, level, discover, never = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
		address = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	} else {
		address = &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	timeout := unix.NsecToTimeval(int64(answerTimeout))
	for _, err := range []error{
		unix.SetsockoptInt(fd, level, discover, never),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
	} {
		if err != nil {
			return 0, nil, err
		}
	}
	return fd, address, nil
}

// message is struct mmsghdr (sendmmsg(2)).
type message struct {
	unix.Msghdr
	length uint32
}

// messages returns n messages, each with its own buffer of size bytes.
func messages(n, size int) (m []message, buffers [][]byte) {
	m, buffers = make([]message, n), make([][]byte, n)
	vectors := make([]unix.Iovec, n)
	for i := range m {
		buffers[i] = make([]byte, size)
		vectors[i].Base = &buffers[i][0]
		vectors[i].SetLen(size)
		m[i].Iov = &vectors[i]
		m[i].SetIovlen(1)
	}
	return m, buffers
}

// call makes one system call for all messages, without informing the Go scheduler. It returns the
// number of messages sent or received.
func call(trap uintptr, fd int, m []message, flags uintptr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), flags, 0, 0)
	return int(n), errno
}

// send sends at the load's rate, or as fast as possible. It never sleeps, so that its CPU is fully
// used at any rate.
func send(l *load) (g generated, err error) {
	fd, to, err := openSocket(l.Addr)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		return g, err
	}
	m, _ := messages(burst, l.Size)
	tried := uint64(0)
	start := time.Now()
	for g.Seconds < l.Seconds {
		due := burst
		if l.Rate > 0 {
			g.Seconds = time.Since(start).Seconds()
			if due = min(burst, int(g.Seconds*l.Rate)-int(tried)); due <= 0 {
				continue
			}
		}
		tried += uint64(due)
		n, errno := call(unix.SYS_SENDMMSG, fd, m[:due], 0)
		switch errno {
		case 0:
			g.Datagrams += uint64(n)
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR, unix.ECONNREFUSED, unix.EPERM: // counts as a lost datagram
		default:
			return g, errno
		}
		g.Seconds = time.Since(start).Seconds()
	}
	return g, nil
}

// listen opens a socket bound to the load's address, and prints readyLine.
func listen(l *load) (int, error) {
	fd, at, err := openSocket(l.Addr)
	if err == nil {
		err = unix.Bind(fd, at)
	}
	if err == nil {
		fmt.Println(readyLine)
	}
	return fd, err
}

// receive counts datagrams. The result's time is that between the first and the last one.
func receive(l *load) (g generated, err error) {
	fd, err := listen(l)
	if err != nil {
		return g, err
	}
	m, _ := messages(burst, 1<<16)
	idle := unix.NsecToTimespec(int64(nap))
	var first, last time.Time
	for start := time.Now(); ; {
		n, errno := call(unix.SYS_RECVMMSG, fd, m, unix.MSG_DONTWAIT)
		now := time.Now()
		switch {
		case errno == 0:
			for i := range m[:n] {
				if int(m[i].length) == l.Size {
					g.Datagrams++
				}
			}
			if last = now; first.IsZero() {
				first = now
			}
		case errno != unix.EAGAIN && errno != unix.EINTR:
			return g, errno
		case now.Sub(start).Seconds() > l.Seconds, !last.IsZero() && now.Sub(last) > silence:
			g.Seconds = last.Sub(first).Seconds()
			return g, nil
		default:
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&idle)), 0, 0)
		}
	}
}

// echo sends received datagrams back.
func echo(l *load) (g generated, err error) {
	fd, err := listen(l)
	if err != nil {
		return g, err
	}
	buffer := make([]byte, 1<<16)
	var from unix.RawSockaddrAny
	silent := 0 // consecutive timeouts
	for start := time.Now(); g.Seconds < l.Seconds && silent < 3; g.Seconds = time.Since(start).Seconds() {
		size := uint32(unsafe.Sizeof(from))
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buffer[0])),
			uintptr(len(buffer)), 0, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno != 0 { // no datagram within answerTimeout
			if g.Datagrams > 0 {
				silent++
			}
			continue
		}
		silent = 0
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&buffer[0])),
			n, 0, uintptr(unsafe.Pointer(&from)), uintptr(size))
		if errno == 0 {
			g.Datagrams++
		}
	}
	return g, nil
}

// warmUp is the number of round trips at the start that are not counted.
const warmUp = 200

// ping measures round-trip times, one after the other.
func ping(l *load) (g generated, err error) {
	fd, to, err := openSocket(l.Addr)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		return g, err
	}
	out, in := make([]byte, l.Size), make([]byte, 1<<16)
	trips := make([]float64, 0, 1<<20)
	start := time.Now()
	for n := uint64(0); time.Since(start).Seconds() < l.Seconds; n++ {
		*(*uint64)(unsafe.Pointer(&out[0])) = n
		sent := time.Now()
		if _, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&out[0])), uintptr(len(out))); errno != 0 {
			continue
		}
		for {
			_, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&in[0])), uintptr(len(in)))
			if errno != 0 {
				break // request or response was lost
			}
			if *(*uint64)(unsafe.Pointer(&in[0])) == n { // not a late response
				if n >= warmUp {
					trips = append(trips, float64(time.Since(sent).Nanoseconds())/1e3)
				}
				break
			}
		}
	}
	if len(trips) == 0 {
		return g, fmt.Errorf("no answer from %s", l.Addr)
	}
	slices.Sort(trips)
	g.Datagrams, g.Seconds = uint64(len(trips)), time.Since(start).Seconds()
	g.P50, g.P99 = trips[len(trips)/2], trips[len(trips)*99/100]
	return g, nil
}
