package tun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// plain is a lane that makes one system call a frame, on any kernel.
type plain struct {
	name, from, to string
	in, out        int // descriptors, the TAPs'
	gate           *gate

	writer
	backlog backlog
	buffers [][]byte // one a frame of a batch: header and frame
	frames  []Frame  // lent
}

// plainBatch is how many frames a plain lane reads at most before it gives
// them out.
const plainBatch = 64

// Plain returns the lanes from one TAP to another, one a queue of the first.
func Plain(from, to *TAP) ([]Lane, error) {
	queues, err := pairs(from, to)
	if err != nil {
		return nil, err
	}
	var lanes []Lane
	for _, q := range queues {
		g, err := newGate()
		if err != nil {
			return nil, closeAll(lanes, err)
		}
		p := &plain{name: from.Name + " to " + to.Name, from: from.Name, to: to.Name, in: q[0], out: q[1], gate: g, backlog: to.newBacklog(from, q[1], g)}
		if from.Offload {
			p.head = headerSize
		}
		size := p.head + from.frameSize()
		memory := make([]byte, plainBatch*size)
		for i := range plainBatch {
			p.buffers = append(p.buffers, memory[i*size:][:size:size])
		}
		lanes = append(lanes, p)
	}
	return lanes, nil
}

// closeAll closes the lanes that there are when the next could not be made,
// for err.
func closeAll(lanes []Lane, err error) error {
	for _, l := range lanes {
		_ = l.Close()
	}
	return err
}

// Name implements [Lane].
func (p *plain) Name() string { return p.name }

// Behind implements [Lane]: a whole batch was there.
func (p *plain) Behind() bool { return len(p.frames) == plainBatch }

// Close implements [Lane].
func (p *plain) Close() error { return p.gate.close() }

// Read implements [Lane].
func (p *plain) Read() ([]Frame, error) {
	if !p.gate.entered {
		_ = p.gate.enter()
	}
	if err := p.gate.end; err != nil {
		return nil, failure("read", p.from, err)
	}
	for {
		if p.gate.closing.Load() {
			return nil, failure("read", p.from, p.gate.leave(ErrClosed))
		}
		if err := p.drain(); err != nil {
			return nil, failure("read", p.from, p.gate.leave(err))
		}
		if len(p.frames) > 0 {
			return p.frames, nil
		}
		if err := p.gate.waitToRead(p.in); err != nil {
			return nil, failure("read", p.from, p.gate.leave(err))
		}
	}
}

// drain reads what is there, as far as there is room. What a device delivered
// before it failed comes first; it fails the next time, too.
func (p *plain) drain() error {
	p.frames = p.frames[:0]
	for len(p.frames) < len(p.buffers) {
		buffer := p.buffers[len(p.frames)]
		n, err := unix.Read(p.in, buffer)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN, err != nil && len(p.frames) > 0:
			return nil
		case err != nil:
			return err
		case n >= p.head:
			p.frames = append(p.frames, lend(buffer[:n], p.head))
		}
	}
	return nil
}

// lend makes a frame of what was read: a header of head bytes, which may be
// none, and the Ethernet frame.
func lend(b []byte, head int) Frame {
	f := Frame{Data: b[head:]}
	if head > 0 {
		f.Offload.decode(b)
		f.headroom = true
	}
	return f
}

// Write implements [Lane].
func (p *plain) Write(frames []Frame) (refused int, err error) {
	if err := p.gate.end; err != nil {
		return len(frames), failure("write", p.to, err)
	}
	for i := range frames {
		if e := p.put(&frames[i]); e != nil {
			refused++
			if err == nil {
				err = failure("write", p.to, e)
			}
		}
	}
	return refused, err
}

// put writes one frame, for which it may wait until there is room.
func (p *plain) put(f *Frame) error {
	if err := p.backlog.take(f); err != nil {
		return err
	}
	return p.writer.write(p.out, f)
}

// Reply implements [Lane].
func (p *plain) Reply(f Frame) error {
	if err := p.gate.end; err != nil {
		return failure("reply by", p.from, err)
	}
	if err := p.writer.write(p.in, &f); err != nil {
		return failure("reply by", p.from, err)
	}
	return nil
}

// writer writes single frames.
type writer struct {
	head int // bytes of virtio-net header in front of each frame

	// vector is what a frame with a header is written from.
	vector [2]unix.Iovec
	header [headerSize]byte
}

// write makes one attempt, whoever else writes to the device: the kernel takes
// each write as one frame.
func (w *writer) write(fd int, f *Frame) error {
	if w.head == 0 {
		_, err := unix.Write(fd, f.Data)
		return err
	}
	f.Offload.encode(w.header[:])
	w.vector[0].Base = &w.header[0]
	w.vector[0].SetLen(headerSize)
	w.vector[1].Base = unsafe.SliceData(f.Data)
	w.vector[1].SetLen(len(f.Data))
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&w.vector[0])), uintptr(len(w.vector)))
	w.vector[1].Base = nil
	if errno != 0 {
		return errno
	}
	return nil
}
