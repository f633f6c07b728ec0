package tap

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/ufo"
)

// Pair is what a lane works on: a queue of one TAP, and the queue of another TAP to which it
// writes the frames. The TAPs own the descriptors.
type Pair struct {
	From, To string // names
	In, Out  int    // descriptors, nonblocking
	Header   int    // bytes of virtio-net header before each frame; may be 0
	Size     int    // of the longest frame with its header, in bytes
	from, to *TAP
	number   int // of the queue that is read

	share int   // of the backlog; see [Pair.NewBacklog]
	queue Queue // the one that is read; see [Pair.NewQueue]
}

// Pairs returns a pair for each queue of the TAP. Packets between two addresses arrive on one
// queue, and so leave through one queue, in order.
func (t *TAP) Pairs(port tun.Port) ([]Pair, error) {
	other, ok := port.(interface{ self() *TAP })
	if !ok {
		return nil, fmt.Errorf("join tap %q to %q: not a tap", t.config.Name, port.Name())
	}
	to := other.self()
	if t.config.Offload != to.config.Offload {
		return nil, fmt.Errorf("join tap %q to tap %q: only one has offload", t.config.Name, to.config.Name)
	}
	p := Pair{From: t.config.Name, To: to.config.Name, Size: t.frameSize(), from: t, to: to}
	if t.config.Offload {
		p.Header = tun.HeaderSize
		p.Size += p.Header
	}
	if to.threaded {
		// If this TAP has more queues, several lanes write to each queue of the other.
		writers := (len(t.queues) + len(to.queues) - 1) / len(to.queues)
		p.share = sendBuffer / 2 / writers
	}
	var pairs []Pair
	for i, fd := range t.queues {
		p.In, p.Out, p.number, p.queue = fd, to.queues[i%len(to.queues)], i, t.queue(i)
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// self lets a type of another package that embeds a TAP act as one.
func (t *TAP) self() *TAP { return t }

const ethernetHeader = 14 // bytes

// frameSize returns the maximum length of a frame that a TAP delivers, in bytes: the MTU or,
// with offload, the 65,535 bytes that the IP length fields allow, plus an Ethernet header and
// two VLAN tags.
func (t *TAP) frameSize() int {
	longest := t.config.MTU
	if t.config.Offload {
		longest = max(longest, 65535)
	}
	return longest + ethernetHeader + 2*4
}

// LaneName returns the name of the pair's lane.
func (p *Pair) LaneName() string { return p.From + " to " + p.To }

// Lend makes a frame of the bytes that were read: a header, if there is one, and the Ethernet
// frame.
func (p *Pair) Lend(b []byte) tun.Frame {
	if p.Header == 0 {
		return tun.Frame{Data: b}
	}
	return tun.FrameOf(b)
}

// Cuts reports whether the kernel fragments a datagram that is written in one piece. Another
// goroutine may change that.
func (p *Pair) Cuts() bool { return p.to.cuts.Load() }

// Failure adds the device to the error of an operation.
func Failure(operation, device string, err error) error {
	if errors.Is(err, unix.EBADFD) {
		err = fmt.Errorf("the device was removed: %w", err)
	}
	return fmt.Errorf("%s tap %q: %w", operation, device, err)
}

// MakeLanes makes a lane of each pair. If one fails, it closes the others.
func MakeLanes[L tun.Lane](pairs []Pair, lane func(*Pair) (L, error)) ([]tun.Lane, error) {
	var lanes []tun.Lane
	for i := range pairs {
		l, err := lane(&pairs[i])
		if err != nil {
			for _, l := range lanes {
				_ = l.Close()
			}
			return nil, err
		}
		lanes = append(lanes, l)
	}
	return lanes, nil
}

// Writer writes single frames.
type Writer struct {
	offload bool // a virtio-net header precedes each frame

	// vector holds the parts of a frame that has a header.
	vector [1 + ufo.MaxFragments]unix.Iovec
	header [ufo.HeaderSize]byte
}

// NewWriter returns a writer to the pair's TAPs.
func (p *Pair) NewWriter() Writer { return Writer{offload: p.Header > 0} }

// Write makes one attempt. Others may write to the device at the same time: the kernel takes
// each write as one frame.
func (w *Writer) Write(fd int, f *tun.Frame) error {
	if !w.offload {
		_, err := unix.Write(fd, f.Data)
		return err
	}
	f.Offload.Encode(w.header[:])
	w.set(0, w.header[:tun.HeaderSize])
	w.set(1, f.Data)
	return w.write(fd, 2)
}

// WriteDatagram makes one attempt to write a datagram in one piece.
func (w *Writer) WriteDatagram(fd int, d *ufo.Datagram) error {
	w.set(0, d.Header(w.header[:]))
	for i := range d.Len() {
		w.set(1+i, d.Payload(i))
	}
	return w.write(fd, 1+d.Len())
}

func (w *Writer) set(i int, b []byte) {
	w.vector[i].Base = unsafe.SliceData(b)
	w.vector[i].SetLen(len(b))
}

// write writes the first n of the vector as one frame.
func (w *Writer) write(fd, n int) error {
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&w.vector[0])), uintptr(n))
	clear(w.vector[:n])
	if errno != 0 {
		return errno
	}
	return nil
}
