package tap

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/ufo"
)

// Pair is a queue of one TAP and the queue of another by which its frames leave:
// what a lane works on. The descriptors are the TAPs'.
type Pair struct {
	From, To string // names
	In, Out  int    // descriptors, not blocking
	Header   int    // bytes of virtio-net header in front of each frame; may be 0
	Size     int    // of the longest frame with its header, in bytes
	from, to *TAP
	number   int // of the queue that is read

	share int   // of the backlog; see [Pair.NewBacklog]
	queue Queue // that is read; see [Pair.NewQueue]
}

// Pairs returns a pair for each queue of the TAP. Packets between two addresses come
// by one queue, and so leave by one, in order.
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
		// Where this TAP has more queues, several lanes write to each of the other's.
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

// self lets a port of another package, which embeds a TAP, be one.
func (t *TAP) self() *TAP { return t }

const ethernetHeader = 14 // bytes

// frameSize is how long a frame can be that a TAP delivers, in bytes: the MTU or,
// with offload, the 65,535 bytes that the IP length fields can say, an Ethernet
// header and two VLAN tags.
func (t *TAP) frameSize() int {
	longest := t.config.MTU
	if t.config.Offload {
		longest = max(longest, 65535)
	}
	return longest + ethernetHeader + 2*4
}

// LaneName is the name of the pair's lane.
func (p *Pair) LaneName() string { return p.From + " to " + p.To }

// Lend makes a frame of what was read: a header, where there is one, and the Ethernet
// frame.
func (p *Pair) Lend(b []byte) tun.Frame {
	if p.Header == 0 {
		return tun.Frame{Data: b}
	}
	return tun.FrameOf(b)
}

// Cuts reports whether the kernel makes fragments of a datagram that is written in one
// piece. Another goroutine may change that.
func (p *Pair) Cuts() bool { return p.to.cuts.Load() }

// Failure says on which device an operation failed.
func Failure(operation, device string, err error) error {
	if errors.Is(err, unix.EBADFD) {
		err = fmt.Errorf("the device was removed: %w", err)
	}
	return fmt.Errorf("%s tap %q: %w", operation, device, err)
}

// MakeLanes makes a lane of each pair, all or none.
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
	offload bool // a virtio-net header goes in front of each frame

	// vector is what a frame with a header is written from.
	vector [1 + ufo.MaxFragments]unix.Iovec
	header [ufo.HeaderSize]byte
}

// NewWriter returns a writer to the pair's TAPs.
func (p *Pair) NewWriter() Writer { return Writer{offload: p.Header > 0} }

// Write makes one attempt, whoever else writes to the device: the kernel takes each
// write as one frame.
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
