package uring

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/gate"
	"fragwall/tun/tap"
	"fragwall/tun/ufo"
)

// lane is a lane over its own io_uring, which moves many frames per system call. The path of a
// frame:
//
//  1. One multishot read stays active: for each frame that arrives, the kernel takes a buffer
//     from the pool. Fragments may arrive through a [tap.Ring] instead.
//  2. Read lends the frames in these buffers and in the ring, in the order of their arrival.
//  3. Write writes them from the same buffers, with one submission per frame, or one for all
//     fragments of a datagram that the kernel fragments in the same way. A TAP accepts a frame
//     at once. So when the single system call returns, all writes are completed, and the
//     frames that were read in the meantime are available.
//  4. The next Read returns the buffers to the pool.
//
// The states of a lane follow. Its gate keeps those that Close needs ([gate] has their
// diagram). Each arrow is a call by the goroutine that owns the lane:
//
//	         first Read: enter              Read: frames are there
//	made ──────────────────► reading ──────────────────────────────► lent
//	(disabled;               (the multishot read  ◄────────────────── │ ▲
//	 idle)                    is armed, the ring     next Read:       │ │ Write:
//	 │                        polls the eventfd)     buffers go back  └─┘ put, settle
//	 │ Close: free              │
//	 │                          │ leave, for: the eventfd (Close), the
//	 ▼                          ▼ end of the read (device removed), a failed ring
//	freed ◄──────────────── ending
//	          all is         (cancels the read and the poll, and waits
//	          cancelled       until both have ended)
//
// A lane that is held stays in the state reading: the multishot read is cancelled, the frames
// that it read are lent, and the Read after that returns [tun.ErrHeld]. The next Read arms the
// multishot read again.
//
// If the ring itself fails, the lane is stuck: the kernel may still write to the pool, so the
// pool's memory is not freed.
//
// The goroutine that calls Read is locked to its thread until Read fails: a ring accepts
// submissions from one thread only.
type lane struct {
	*tap.Pair
	gate    *gate.Gate
	ring    *ring
	pool    *pool
	replies tap.Writer
	backlog tap.Backlog
	queue   tap.Queue

	fragments tap.Ring // of the fragments that bypass the queue
	entered   bool     // io_uring_enter was called since the last Read

	lent, ready batch // returned by Read, and received since
	reading     bool  // the multishot read is active
	cancelling  bool  // its cancellation is submitted
	readErr     error // the error that ended it
	polling     bool  // a poll of the gate's eventfd is active

	writing  int   // frames whose writes are not completed
	refused  int   // frames that the device refused in this Write
	writeErr error // of the first of these

	// The headers and parts of frames that are written from several parts, by the index of the
	// frame, or of the first fragment. n fragments need 1+n vectors: the header and n parts.
	headers [maxWrites][ufo.HeaderSize]byte
	vectors [2 * maxWrites]vector

	stuck bool // the kernel may still use the pool
}

var _ tun.Lane = (*lane)(nil)

// batch is a list of frames and of the buffers that hold them.
type batch struct {
	frames []tun.Frame
	ids    []uint16
}

// vector is struct iovec, with the address as a number.
type vector struct{ base, length uint64 }

const (
	// smallBuffers is the number of buffers of a lane, and largeBuffers their number if frames
	// may be longer than largeFrame bytes. The kernel allocates the memory of a buffer when the
	// first frame arrives in it.
	smallBuffers = 1024
	largeBuffers = 256
	largeFrame   = 4096

	// maxSubmissions has room for maxWrites and the other submissions: the read, the poll of
	// the eventfd, the cancellation.
	maxSubmissions = 1024
	maxWrites      = maxSubmissions - 8
	// maxCompletions has room for the completions of all buffers and submissions at once.
	maxCompletions = 4096
)

// The registered files of a ring.
const (
	fileIn = iota
	fileOut
)

// The kind of a completion, in the low bits of its user data. For a write, the bits above hold
// the number of frames.
const (
	ofRead = iota + 1
	ofWrite
	ofWake
	ofCancel

	ofBits = 8
)

// newLane makes the lane of a pair. It submits nothing, because only the reading thread may.
func newLane(p *tap.Pair) (*lane, error) {
	l := &lane{Pair: p, replies: p.NewWriter(), queue: p.NewQueue(), fragments: p.NewRing()}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *lane) open() (err error) {
	if l.ring, err = newRing(maxSubmissions, maxCompletions); err != nil {
		return err
	}
	count := smallBuffers
	if l.Size > largeFrame {
		count = largeBuffers
	}
	if l.pool, err = newPool(count, l.Size); err != nil {
		return errors.Join(err, l.ring.close())
	}
	if err := l.register(); err != nil {
		return errors.Join(err, l.free())
	}
	for id := range count {
		l.ready.ids = append(l.ready.ids, uint16(id))
	}
	l.pool.give(l.ready.ids)
	l.ready.ids = l.ready.ids[:0]
	if l.gate, err = gate.New(l.free); err != nil {
		return errors.Join(err, l.free())
	}
	l.backlog = l.NewBacklog(l.gate)
	return nil
}

func (l *lane) register() error {
	fds := [2]int32{fileIn: int32(l.In), fileOut: int32(l.Out)}
	if err := l.ring.register(registerFiles, unsafe.Pointer(&fds), len(fds)); err != nil {
		return err
	}
	buffers := bufferRegistration{
		ringAddr:    uint64(uintptr(unsafe.Pointer(&l.pool.queue[0]))),
		ringEntries: uint32(len(l.pool.free)),
	}
	return l.ring.register(registerBufferRing, unsafe.Pointer(&buffers), 1)
}

// Name returns the names of the two TAPs.
func (l *lane) Name() string { return l.LaneName() }

// Hold makes a Read return [tun.ErrHeld] after the multishot read is cancelled and its frames
// have been lent.
func (l *lane) Hold() error { return l.gate.Hold() }

// Close wakes a Read.
func (l *lane) Close() error { return l.gate.Close() }

// enter assigns the lane to this goroutine and its thread.
func (l *lane) enter() {
	if l.gate.Enter() != nil {
		return
	}
	runtime.LockOSThread()
	if err := l.ring.register(registerEnableRings, nil, 0); err != nil {
		l.stuck = true // nothing was submitted, and nothing can be
		_ = l.leave(err)
		return
	}
}

// reap processes all completions.
func (l *lane) reap() {
	for {
		c, ok := l.ring.pop()
		if !ok {
			return
		}
		switch c.userData & (1<<ofBits - 1) {
		case ofRead:
			l.received(&c)
		case ofWrite:
			n := int(c.userData >> ofBits)
			l.writing -= n
			if err := c.err(); err != nil {
				l.refuse(n, err)
			}
		case ofWake:
			l.polling = false
		}
	}
}

// Write submits frames and waits until all are written.
func (l *lane) Write(frames []tun.Frame) (refused int, err error) {
	if err := l.gate.Err(); err != nil {
		return len(frames), tap.Failure("write", l.To, err)
	}
	l.refused, l.writeErr = 0, nil
	cuts := l.Cuts()
	for len(frames) > 0 {
		batch, n := frames[:min(len(frames), maxWrites)], 0
		for n < len(batch) && (n == 0 || !l.backlog.Full()) {
			var d ufo.Datagram
			size := 1
			if cuts {
				d, _ = ufo.Find(batch[n:])
				size = max(1, d.Len())
			}
			if err := l.backlog.Take(batch[n:][:size]); err != nil {
				l.refuse(len(frames), err)
				return l.refused, l.writeErr
			}
			if d.Len() > 0 {
				l.putDatagram(&d, n)
			} else {
				l.put(&batch[n], n)
			}
			n += size
		}
		l.writing = n
		l.settle()
		runtime.KeepAlive(frames)
		frames = frames[n:]
	}
	return l.refused, l.writeErr
}

// Reply makes one attempt, without the ring.
func (l *lane) Reply(f tun.Frame) error {
	if err := l.gate.Err(); err != nil {
		return tap.Failure("reply by", l.From, err)
	}
	if err := l.replies.Write(l.In, &f); err != nil {
		return tap.Failure("reply by", l.From, err)
	}
	return nil
}

// submit adds a write that consists of the given number of frames.
func (l *lane) submit(frames int) *sqe {
	s := l.ring.next()
	s.opcode, s.flags, s.fd = opWrite, sqeFixedFile, fileOut
	s.off, s.userData = ^uint64(0), ofWrite|uint64(frames)<<ofBits
	s.opFlags = unix.RWF_NOWAIT // otherwise frames for which there is no room would be reordered
	return s
}

// put submits the write of a frame, the i-th of those that are written together.
func (l *lane) put(f *tun.Frame, i int) {
	s := l.submit(1)
	if l.Header == 0 {
		s.addr, s.length = address(f.Data), uint32(len(f.Data))
		return
	}
	if b, ok := f.WithHeader(); ok {
		s.addr, s.length = address(b), uint32(len(b))
		return
	}
	f.Offload.Encode(l.headers[i][:])
	gather(s, append(l.vectors[2*i:2*i], vectorOf(l.headers[i][:tun.HeaderSize]), vectorOf(f.Data)))
}

// putDatagram submits the write of a datagram in one piece. Its first fragment is the i-th of
// the frames that are written together.
func (l *lane) putDatagram(d *ufo.Datagram, i int) {
	parts := append(l.vectors[2*i:2*i], vectorOf(d.Header(l.headers[i][:])))
	for n := range d.Len() {
		parts = append(parts, vectorOf(d.Payload(n)))
	}
	gather(l.submit(d.Len()), parts)
}

// gather makes a write take a frame from several parts.
func gather(s *sqe, parts []vector) {
	s.opcode = opWritev
	s.addr, s.length = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(parts)))), uint32(len(parts))
}

func vectorOf(b []byte) vector { return vector{address(b), uint64(len(b))} }

// address returns the address of a slice's memory for the kernel. The memory does not move: it
// is on the heap, or outside the collector's control. The caller keeps it alive.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// settle submits the writes and waits until all are completed, which happens at once.
func (l *lane) settle() {
	for l.writing > 0 {
		l.entered = true
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

// refuse counts frames that the device refused.
func (l *lane) refuse(frames int, err error) {
	l.refused += frames
	if l.writeErr == nil {
		l.writeErr = tap.Failure("write", l.To, err)
	}
}

// leave ends the lane with err, after the kernel has finished with the lane's memory.
func (l *lane) leave(err error) error {
	l.fragments.Leave()
	s := l.ring.next()
	s.opcode, s.opFlags, s.userData = opAsyncCancel, cancelAll|cancelAny, ofCancel
	for !l.stuck && (l.reading || l.polling) {
		if l.ring.enter(1) != nil {
			l.stuck = true
			break
		}
		l.reap()
	}
	err = l.gate.Leave(err)
	runtime.UnlockOSThread()
	return err
}

// free releases the lane's resources. It unregisters the files first, because the kernel keeps
// registered files open for a while after the ring is closed. If the kernel may still write to the
// pool, free leaves the pool's memory mapped.
func (l *lane) free() error {
	errs := []error{l.ring.register(unregisterFiles, nil, 0), l.ring.close()}
	if !l.stuck {
		errs = append(errs, l.pool.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lane %q: %w", l.LaneName(), err)
	}
	return nil
}
