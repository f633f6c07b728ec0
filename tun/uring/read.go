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

// Read returns the frames that the multishot read delivered, and the fragments in the ring.
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
			l.arm() // submitted together with the writes
			return l.lent.frames, nil
		case l.readErr != nil:
			return nil, tap.Failure("read", l.From, l.leave(l.readErr))
		case l.gate.Held() && !l.reading && !l.polling && l.fragments.Sleep():
			l.fragments.Leave() // another process may take over the ring
			return nil, tap.Failure("read", l.From, l.gate.Rest())
		}
		l.poll()
		l.arm()
		if err := l.wait(); err != nil {
			return nil, tap.Failure("read", l.From, l.leave(err))
		}
	}
}

// giveBack returns the lent buffers and records. If fragments wait in the ring and nothing has
// called io_uring_enter since the last Read, giveBack does, so that the kernel delivers the frames
// of the queue, too.
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

// lend lends the available frames in the order of their arrival, and reports whether there are
// any. It checks the ring after reap took the frames of the queue: so the fragments that arrived
// before one of these frames are in the ring.
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

// merge lends the frames of the queue, and before each of them the fragments that arrived earlier.
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
	// longestWait is the interval at which an idle lane checks that its device exists.
	longestWait = time.Second
	// lateFrame is how long a fragment waits for frames of the queue that were counted before
	// it. After that, the lane assumes that the kernel lost these frames.
	lateFrame = time.Millisecond
)

// wait waits until there may be frames to lend.
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

// look checks that the device that the lane reads still exists. The kernel wakes the read shortly
// before it removes the device, and only once: a fast read still finds the device, and then waits
// forever (drivers/net/tun.c, tun_detach_all).
func (l *lane) look() {
	in := [...]unix.PollFd{{Fd: int32(l.In)}}
	if n, err := unix.Poll(in[:], 0); n > 0 && err == nil {
		l.readErr = unix.EBADFD
	}
}

// Behind reports whether the last Read returned frames for at least half of the buffers.
func (l *lane) Behind() bool { return len(l.lent.frames) >= len(l.pool.free)/2 }

// Shed returns the number of frames that the programs of the TAP refused.
func (l *lane) Shed() uint64 { return l.queue.Shed() }

// Credit adds to the credit of a source in the TAP's filter.
func (l *lane) Credit(src netip.Addr) { l.queue.Credit(src) }

// poll submits a poll of the gate's eventfd, unless one is active or the lane is held.
func (l *lane) poll() {
	if l.polling || l.gate.Held() {
		return
	}
	s := l.ring.next()
	s.opcode, s.fd, s.opFlags, s.userData = opPollAdd, int32(l.gate.Wake()), unix.POLLIN, ofWake
	l.polling = true
}

// arm submits the multishot read if it is not active: the kernel ends it when the pool is empty.
// If the lane is held, arm cancels the read.
func (l *lane) arm() {
	if l.gate.Held() {
		// Fragments in the ring may wait for frames in the queue, so read on until the ring is empty.
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
	s.off, s.userData = ^uint64(0), ofRead // no file position
	l.reading, l.cancelling = true, false
}

// cancel submits the cancellation of the multishot read.
func (l *lane) cancel() {
	if !l.reading || l.cancelling {
		return
	}
	s := l.ring.next()
	s.opcode, s.addr, s.userData = opAsyncCancel, ofRead, ofCancel
	l.cancelling = true
}

// received processes a completion of the multishot read: a frame, or the end of the read.
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
	var f tun.Frame // empty if the bytes are fewer than the header
	if n >= l.Header {
		f = l.Lend(l.pool.data(id, n))
	}
	l.ready.ids, l.ready.frames = append(l.ready.ids, id), append(l.ready.frames, f)
}
