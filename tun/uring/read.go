package uring

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/tap"
)

// Read lends what the multishot read has brought, and the fragments of the ring.
func (l *lane) Read() ([]tun.Frame, error) {
	if !l.gate.Entered() {
		l.enter()
	}
	if err := l.gate.Err(); err != nil {
		return nil, tap.Failure("read", l.From, err)
	}
	l.giveBack()
	for {
		if !l.gate.Held() && !l.gate.Closing() {
			l.fragments.Wake()
		}
		l.reap()
		switch {
		case l.gate.Closing():
			return nil, tap.Failure("read", l.From, l.leave(tun.ErrClosed))
		case l.lend():
			l.arm() // goes out with the writes
			return l.lent.frames, nil
		case l.readErr != nil:
			return nil, tap.Failure("read", l.From, l.leave(l.readErr))
		case l.gate.Held() && !l.reading && !l.polling && l.fragments.Sleep():
			l.fragments.Leave() // another process may go on with it
			return nil, tap.Failure("read", l.From, l.gate.Rest())
		}
		l.poll()
		l.arm()
		if err := l.wait(); err != nil {
			return nil, tap.Failure("read", l.From, l.leave(err))
		}
	}
}

// giveBack gives back what is lent. Where fragments alone come, and nothing of them was
// written, it has the kernel bring the frames of the queue.
func (l *lane) giveBack() {
	l.pool.give(l.lent.ids)
	l.fragments.Free()
	l.lent.frames, l.lent.ids = l.lent.frames[:0], l.lent.ids[:0]
	if !l.entered && l.fragments.Waiting() {
		if err := l.ring.enter(0); err != nil {
			l.stuck, l.readErr = true, err
		}
	}
	l.entered = false
}

// lend lends what is there, in the order in which it came, and reports whether there was
// anything. The fragments are looked at after the frames of the queue were reaped: what
// came before one of these is there.
func (l *lane) lend() bool {
	switch {
	case l.fragments.Waiting():
		l.merge()
	case len(l.ready.frames) > 0:
		l.lent, l.ready = l.ready, l.lent
	}
	l.queue.Take(len(l.lent.ids))
	return len(l.lent.frames) > 0
}

// merge lends frames of the queue, and in front of each the fragments that came before it.
func (l *lane) merge() {
	queued, most := l.queue.Taken(), len(l.pool.free)
	all, n := false, 0
	for ; ; n++ {
		l.lent.frames, all = l.fragments.Lend(l.lent.frames, queued+uint32(n), most)
		if !all || n == len(l.ready.frames) {
			break
		}
		l.lent.frames = append(l.lent.frames, l.ready.frames[n])
	}
	l.lent.ids = append(l.lent.ids, l.ready.ids[:n]...)
	l.ready.frames, l.ready.ids = slices.Delete(l.ready.frames, 0, n), slices.Delete(l.ready.ids, 0, n)
}

const (
	// longestWait is how long a lane waits until it looks whether its device is there.
	longestWait = time.Second
	// lateFrame is how long a fragment waits for frames of the queue that were counted
	// before it, until it is taken that the kernel lost them.
	lateFrame = time.Millisecond
)

// wait waits until there may be something to lend.
func (l *lane) wait() error {
	in, timeout := l.queue.In(), longestWait
	if !l.fragments.Sleep() {
		if !l.fragments.Blocked(l.queue.Taken()) {
			return nil
		}
		timeout = lateFrame
	}
	err := l.ring.wait(timeout)
	l.entered = true
	if errors.Is(err, unix.ETIME) {
		l.look()
		l.queue.Empty(in)
		return nil
	}
	return err
}

// look asks whether the device that the lane reads is still there. The kernel
// wakes the read shortly before a device is gone: one that is quick finds it
// there, and nobody wakes it again (drivers/net/tun.c, tun_detach_all).
func (l *lane) look() {
	in := [...]unix.PollFd{{Fd: int32(l.In)}}
	if n, err := unix.Poll(in[:], 0); n > 0 && err == nil {
		l.readErr = unix.EBADFD
	}
}

// Behind reports whether at least half as many frames were there as there are buffers.
func (l *lane) Behind() bool { return len(l.lent.frames) >= len(l.pool.free)/2 }

// Shed returns what the filter of the TAP refused.
func (l *lane) Shed() uint64 { return l.queue.Shed() }

// Credit tells the filter of the TAP.
func (l *lane) Credit(src netip.Addr) { l.queue.Credit(src) }

// poll has the ring poll the gate's eventfd, where it does not.
func (l *lane) poll() {
	if l.polling || l.gate.Held() {
		return
	}
	s := l.ring.next()
	s.opcode, s.fd, s.opFlags, s.userData = opPollAdd, int32(l.gate.Wake()), unix.POLLIN, ofWake
	l.polling = true
}

// arm submits the multishot read where it does not go on, or cancels it where the lane
// is held. The kernel ends it when the pool is empty.
func (l *lane) arm() {
	if l.gate.Held() {
		// Fragments may have to wait for what is in the queue.
		if l.fragments.Sleep() {
			l.cancel()
			return
		}
	}
	if l.reading || l.readErr != nil {
		return
	}
	s := l.ring.next()
	s.opcode, s.flags, s.fd = opReadMultishot, sqeFixedFile|sqeBufferSelect, fileIn
	s.off, s.userData = ^uint64(0), ofRead // no position, as of a stream
	l.reading, l.cancelling = true, false
}

// cancel submits the end of the multishot read.
func (l *lane) cancel() {
	if !l.reading || l.cancelling {
		return
	}
	s := l.ring.next()
	s.opcode, s.addr, s.userData = opAsyncCancel, ofRead, ofCancel
	l.cancelling = true
}

// received takes in a frame, or the end of the read.
func (l *lane) received(c *cqe) {
	l.reading = c.flags&cqeMore != 0
	if err := c.err(); err != nil {
		switch err {
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR, unix.ECANCELED:
		default:
			l.readErr = err
		}
		return
	}
	if c.flags&cqeBuffer == 0 {
		l.readErr = io.ErrUnexpectedEOF
		return
	}
	id, n := uint16(c.flags>>cqeBufferShift), int(c.result)
	var f tun.Frame // of nothing, where not even its header is there
	if n >= l.Header {
		f = l.Lend(l.pool.data(id, n))
	}
	l.ready.ids, l.ready.frames = append(l.ready.ids, id), append(l.ready.frames, f)
}
