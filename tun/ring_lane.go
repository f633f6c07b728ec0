package tun

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringLane is a lane over an io_uring of its own, which takes many frames a
// system call. The way of a frame:
//
//  1. one multishot read goes on for ever: for each frame that comes, the
//     kernel takes a buffer from the pool;
//  2. Read lends the frames in these buffers;
//  3. Write writes them from the very same buffers, one submission a frame. A
//     TAP takes a frame at once, so that when the one system call returns, all
//     writes are completed, and what was read in the meantime is there;
//  4. the next Read gives the buffers back to the pool.
//
// The goroutine that calls Read is wired to its thread until Read fails: a ring
// takes submissions from one thread only.
type ringLane struct {
	name, from, to string
	gate           *gate
	ring           *ring
	pool           *pool
	in             int // descriptor of what the lane reads
	writer             // of replies
	backlog        backlog

	lent, ready ringBatch // given out, and read in the meantime
	reading     bool      // the multishot read goes on
	readErr     error     // that ended it
	waiting     bool      // for the gate's eventfd

	writing  int // writes that are not completed
	refused  int
	writeErr error // the first one's

	// Of the frames without headroom among those being written, in order:
	headers [ringWrites][headerSize]byte
	vectors [ringWrites][2]vector

	stuck bool // the kernel may go on to use the pool
}

// ringBatch is frames, and the buffers that they stand in.
type ringBatch struct {
	frames []Frame
	ids    []uint16
}

// vector is struct iovec, by address.
type vector struct{ base, length uint64 }

const (
	// ringBuffers is how many frames a lane holds at a time, and
	// ringLargeBuffers how many where a frame may be large. Memory that no frame
	// comes into is never touched.
	ringBuffers      = 1024
	ringLargeBuffers = 256
	largeFrame       = 4096 // bytes

	// ringSubmissions leaves room for what is submitted beside ringWrites: the
	// read, the wait for the eventfd, the cancellation.
	ringSubmissions = 1024
	ringWrites      = ringSubmissions - 8
	// ringCompletions holds those of all buffers and submissions at once.
	ringCompletions = 4096
)

// The registered files of a ring.
const (
	fileIn = iota
	fileOut
)

// What a completion is of, in its user data.
const (
	ofRead = iota + 1
	ofWrite
	ofWake
	ofCancel
)

// Ring returns the lanes from one TAP to another, one a queue of the first,
// over io_uring. It needs Linux 6.7; where the kernel or a sandbox denies it,
// the error says why, and [Plain] serves.
func Ring(from, to *TAP) ([]Lane, error) {
	queues, err := pairs(from, to)
	if err != nil {
		return nil, err
	}
	var lanes []Lane
	for _, q := range queues {
		l := &ringLane{name: from.Name + " to " + to.Name, from: from.Name, to: to.Name, in: q[0]}
		if from.Offload {
			l.head = headerSize
		}
		if err := l.open(from, to, q); err != nil {
			return nil, closeAll(lanes, err)
		}
		lanes = append(lanes, l)
	}
	return lanes, nil
}

// open makes what the lane needs. It submits nothing: that is for the thread
// which reads.
func (l *ringLane) open(from, to *TAP, files [2]int) (err error) {
	if l.ring, err = newRing(ringSubmissions, ringCompletions); err != nil {
		return err
	}
	count, frameSize := ringBuffers, l.head+from.frameSize()
	if frameSize > largeFrame {
		count = ringLargeBuffers
	}
	if l.pool, err = newPool(count, frameSize); err != nil {
		return errors.Join(err, l.ring.close())
	}
	if err := l.register(files); err != nil {
		return errors.Join(err, l.free())
	}
	for id := range count {
		l.ready.ids = append(l.ready.ids, uint16(id))
	}
	l.pool.give(l.ready.ids)
	l.ready.ids = l.ready.ids[:0]
	if l.gate, err = newGate(); err != nil {
		return errors.Join(err, l.free())
	}
	l.gate.free = l.free
	l.backlog = to.newBacklog(from, files[fileOut], l.gate)
	return nil
}

func (l *ringLane) register(files [2]int) error {
	fds := [2]int32{fileIn: int32(files[0]), fileOut: int32(files[1])}
	if err := l.ring.register(registerFiles, unsafe.Pointer(&fds), len(fds)); err != nil {
		return err
	}
	buffers := bufferRegistration{
		ringAddr:    uint64(uintptr(unsafe.Pointer(&l.pool.queue[0]))),
		ringEntries: uint32(len(l.pool.free)),
	}
	return l.ring.register(registerBufferRing, unsafe.Pointer(&buffers), 1)
}

// Name implements [Lane].
func (l *ringLane) Name() string { return l.name }

// Close implements [Lane].
func (l *ringLane) Close() error { return l.gate.close() }

// Read implements [Lane].
func (l *ringLane) Read() ([]Frame, error) {
	if !l.gate.entered {
		l.enter()
	}
	if err := l.gate.end; err != nil {
		return nil, failure("read", l.from, err)
	}
	l.pool.give(l.lent.ids)
	l.lent.frames, l.lent.ids = l.lent.frames[:0], l.lent.ids[:0]
	for {
		l.reap()
		switch {
		case l.gate.closing.Load():
			return nil, failure("read", l.from, l.leave(ErrClosed))
		case len(l.ready.frames) > 0:
			l.lent, l.ready = l.ready, l.lent
			l.arm() // goes out with the writes
			return l.lent.frames, nil
		case l.readErr != nil:
			return nil, failure("read", l.from, l.leave(l.readErr))
		}
		l.arm()
		switch err := l.ring.wait(); {
		case errors.Is(err, unix.ETIME):
			l.look()
		case err != nil:
			return nil, failure("read", l.from, l.leave(err))
		}
	}
}

// look asks whether the device that the lane reads is still there. The kernel
// wakes the read shortly before a device is gone: one that is quick finds it
// there, and nobody wakes it again (drivers/net/tun.c, tun_detach_all).
func (l *ringLane) look() {
	in := [...]unix.PollFd{{Fd: int32(l.in)}}
	if n, err := unix.Poll(in[:], 0); n > 0 && err == nil {
		l.readErr = unix.EBADFD
	}
}

// Behind implements [Lane]: half of the buffers were taken.
func (l *ringLane) Behind() bool { return len(l.lent.ids) >= len(l.pool.free)/2 }

// enter takes the lane for this goroutine and its thread.
func (l *ringLane) enter() {
	if l.gate.enter() != nil {
		return
	}
	runtime.LockOSThread()
	if err := l.ring.register(registerEnableRings, nil, 0); err != nil {
		l.stuck = true // nothing was submitted, and nothing can be
		_ = l.leave(err)
		return
	}
	s := l.ring.next()
	s.opcode, s.fd, s.opFlags, s.userData = opPollAdd, int32(l.gate.wake), unix.POLLIN, ofWake
	l.waiting = true
}

// arm submits the multishot read where it does not go on. The kernel ends it
// when the pool is empty.
func (l *ringLane) arm() {
	if l.reading || l.readErr != nil {
		return
	}
	s := l.ring.next()
	s.opcode, s.flags, s.fd = opReadMultishot, sqeFixedFile|sqeBufferSelect, fileIn
	s.off, s.userData = ^uint64(0), ofRead // no position, as of a stream
	l.reading = true
}

// reap takes in all that is completed.
func (l *ringLane) reap() {
	for {
		c, ok := l.ring.pop()
		if !ok {
			return
		}
		switch c.userData {
		case ofRead:
			l.received(&c)
		case ofWrite:
			l.writing--
			if err := c.err(); err != nil {
				l.refuse(err)
			}
		case ofWake:
			l.waiting = false
		}
	}
}

// received takes in a frame, or the end of the read.
func (l *ringLane) received(c *cqe) {
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
	l.ready.ids = append(l.ready.ids, id)
	if n >= l.head {
		l.ready.frames = append(l.ready.frames, lend(l.pool.data(id, n), l.head))
	}
}

// Write implements [Lane].
func (l *ringLane) Write(frames []Frame) (refused int, err error) {
	if err := l.gate.end; err != nil {
		return len(frames), failure("write", l.to, err)
	}
	l.refused, l.writeErr = 0, nil
	for len(frames) > 0 {
		n := 0
		for n < min(len(frames), ringWrites) && (n == 0 || !l.backlog.full()) {
			if err := l.backlog.take(&frames[n]); err != nil {
				l.refuse(err)
				return l.refused + len(frames) - 1, l.writeErr
			}
			l.put(&frames[n], n)
			n++
		}
		l.writing = n
		l.settle()
		runtime.KeepAlive(frames)
		frames = frames[n:]
	}
	return l.refused, l.writeErr
}

// Reply implements [Lane].
func (l *ringLane) Reply(f Frame) error {
	if err := l.gate.end; err != nil {
		return failure("reply by", l.from, err)
	}
	if err := l.writer.write(l.in, &f); err != nil {
		return failure("reply by", l.from, err)
	}
	return nil
}

// put submits the write of a frame, the i-th of those that go at once.
func (l *ringLane) put(f *Frame, i int) {
	s := l.ring.next()
	s.opcode, s.flags, s.fd = opWrite, sqeFixedFile, fileOut
	s.off, s.userData = ^uint64(0), ofWrite
	s.opFlags = unix.RWF_NOWAIT // or those that find no room would overtake one another later
	data := unsafe.Pointer(unsafe.SliceData(f.Data))
	switch {
	case l.head == 0:
		s.addr, s.length = address(data), uint32(len(f.Data))
	case f.headroom:
		start := unsafe.Add(data, -headerSize)
		f.Offload.encode(unsafe.Slice((*byte)(start), headerSize))
		s.addr, s.length = address(start), uint32(headerSize+len(f.Data))
	default:
		f.Offload.encode(l.headers[i][:])
		l.vectors[i] = [2]vector{
			{address(unsafe.Pointer(&l.headers[i])), headerSize},
			{address(data), uint64(len(f.Data))},
		}
		s.opcode = opWritev
		s.addr, s.length = address(unsafe.Pointer(&l.vectors[i])), 2
	}
}

// address is what the kernel calls a pointer. What it points to does not move,
// being on the heap or none of the collector's; the caller keeps it alive.
func address(p unsafe.Pointer) uint64 { return uint64(uintptr(p)) }

// settle submits the writes and waits until all are completed, which they are
// at once.
func (l *ringLane) settle() {
	for l.writing > 0 {
		if err := l.ring.enter(1); err != nil {
			l.stuck = true
			l.readErr = err
			l.refused += l.writing
			l.writing = 0
			return
		}
		l.reap()
	}
}

// refuse counts a frame that the device did not take.
func (l *ringLane) refuse(err error) {
	l.refused++
	if l.writeErr == nil {
		l.writeErr = failure("write", l.to, err)
	}
}

// leave ends the lane for err: nothing goes on any more when its memory is
// freed.
func (l *ringLane) leave(err error) error {
	s := l.ring.next()
	s.opcode, s.opFlags, s.userData = opAsyncCancel, cancelAll|cancelAny, ofCancel
	for !l.stuck && (l.reading || l.waiting) {
		if l.ring.enter(1) != nil {
			l.stuck = true
			break
		}
		l.reap()
	}
	err = l.gate.leave(err)
	runtime.UnlockOSThread()
	return err
}

// free gives all back. The kernel keeps registered files for a while after a
// ring is closed, so that they go first; memory that it may still write to
// stays.
func (l *ringLane) free() error {
	errs := []error{l.ring.register(unregisterFiles, nil, 0), l.ring.close()}
	if !l.stuck {
		errs = append(errs, l.pool.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lane %q: %w", l.name, err)
	}
	return nil
}
