package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// generated is the generator's output, as JSON.
type generated struct {
	Frames  uint64
	Seconds float64
}

// burst is the maximum number of frames per system call. At low rates fewer are sent, so that frames
// are evenly spaced.
const burst = 64

// generate sends a flood, which spec describes as JSON, from the current namespace.
func generate(spec string) error {
	var f Flood
	if err := json.Unmarshal([]byte(spec), &f); err != nil {
		return fmt.Errorf("flood %q: %w", spec, err)
	}
	runtime.LockOSThread()
	fd, err := openSender(f.NIC)
	if err != nil {
		return fmt.Errorf("open packet socket on %q: %w", f.NIC, err)
	}
	defer unix.Close(fd)

	batch := burst
	if f.Rate > 0 {
		batch = max(1, min(burst, f.Rate/1000))
	}
	s := newSender(&f, fd, batch)
	start := time.Now()
	limit := time.Duration(f.Seconds * float64(time.Second))
	var sent uint64
	for {
		passed := time.Since(start)
		if passed >= limit {
			return json.NewEncoder(os.Stdout).Encode(generated{sent, passed.Seconds()})
		}
		if f.Rate > 0 {
			due := time.Duration(sent) * time.Second / time.Duration(f.Rate)
			if due > passed {
				time.Sleep(due - passed)
				continue
			}
		}
		n, err := s.send()
		if err != nil {
			return err
		}
		sent += uint64(n)
	}
}

// openSender opens a packet socket that only sends and bypasses the queueing discipline (packet(7),
// PACKET_QDISC_BYPASS).
func openSender(nic string) (int, error) {
	link, err := net.InterfaceByName(nic)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}),
	)
}

// message is struct mmsghdr (sendmmsg(2)).
type message struct {
	unix.Msghdr
	length uint32
}

// sender sends the frames of a flood in batches.
type sender struct {
	flood     *Flood
	fd        int
	templates []template
	messages  []message // by template
	firsts    []bool    // by template: whether it is the first frame of a datagram
	unsent    int       // number of templates at the end that are not sent yet
	seed      uint64
	datagram  uint64 // number of the last datagram
}

// newSender makes at least batch templates: the frames of whole datagrams, equally many of each
// address family.
func newSender(f *Flood, fd, batch int) *sender {
	s := &sender{flood: f, fd: fd, seed: rand.Uint64()}
	for len(s.templates) < batch {
		for _, ipv6 := range f.Families {
			for i, t := range f.templates(ipv6) {
				s.templates = append(s.templates, t)
				s.firsts = append(s.firsts, i == 0)
			}
		}
	}
	vectors := make([]unix.Iovec, len(s.templates))
	s.messages = make([]message, len(s.templates))
	for i := range s.templates {
		frame := s.templates[i].frame
		vectors[i].Base = &frame[0]
		vectors[i].SetLen(len(frame))
		s.messages[i].Iov = &vectors[i]
		s.messages[i].SetIovlen(1)
	}
	return s
}

// send sends frames with one system call, and returns their number. When all templates are sent,
// the next call changes them to new datagrams.
func (s *sender) send() (int, error) {
	if s.unsent == 0 {
		for i := range s.templates {
			if s.firsts[i] {
				s.datagram++
			}
			s.flood.mark(&s.templates[i], s.seed+s.datagram)
		}
		s.unsent = len(s.templates)
	}
	next := s.messages[len(s.messages)-s.unsent:]
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&next[0])), uintptr(min(len(next), burst)), 0, 0, 0)
	switch errno {
	case 0:
		s.unsent -= int(n)
		return int(n), nil
	case unix.ENOBUFS, unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("send frames: %w", errno)
}
