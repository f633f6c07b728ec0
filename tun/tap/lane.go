package tap

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"fragwall/tun"
	"fragwall/tun/internal/gate"
	"fragwall/tun/ufo"
)

// lane is a lane that makes one system call per frame.
type lane struct {
	*Pair
	gate    *gate.Gate
	writer  Writer
	backlog Backlog
	queue   Queue
	buffers [][]byte    // one per frame of a batch: header and frame
	frames  []tun.Frame // returned by the last Read
}

// laneBatch is the maximum number of frames that a Read returns.
const laneBatch = 64

var _ tun.Lane = (*lane)(nil)

// Lanes returns lanes that make one system call per frame, on any kernel.
func (t *TAP) Lanes(to tun.Port) ([]tun.Lane, error) {
	pairs, err := t.Pairs(to)
	if err != nil {
		return nil, err
	}
	return MakeLanes(pairs, newLane)
}

func newLane(p *Pair) (*lane, error) {
	g, err := gate.New(nil)
	if err != nil {
		return nil, err
	}
	l := &lane{Pair: p, gate: g, writer: p.NewWriter(), backlog: p.NewBacklog(g), queue: p.NewQueue()}
	memory := make([]byte, laneBatch*p.Size)
	for i := range laneBatch {
		l.buffers = append(l.buffers, memory[i*p.Size:][:p.Size:p.Size])
	}
	return l, nil
}

// Name returns the names of the two TAPs.
func (l *lane) Name() string { return l.LaneName() }

// Behind reports whether the last Read returned a whole batch.
func (l *lane) Behind() bool { return len(l.frames) == laneBatch }

// Shed returns the number of frames that the TAP's filter refused.
func (l *lane) Shed() uint64 { return l.queue.Shed() }

// Credit adds to the credit of a source in the TAP's filter.
func (l *lane) Credit(src netip.Addr) { l.queue.Credit(src) }

// Hold makes a Read return [tun.ErrHeld].
func (l *lane) Hold() error { return l.gate.Hold() }

// Close wakes a Read.
func (l *lane) Close() error { return l.gate.Close() }

// Read returns a batch of the frames that are in the queue.
func (l *lane) Read() ([]tun.Frame, error) {
	if !l.gate.Entered() {
		_ = l.gate.Enter()
	}
	if err := l.gate.Err(); err != nil {
		return nil, Failure("read", l.From, err)
	}
	for {
		if l.gate.Closing() {
			return nil, Failure("read", l.From, l.gate.Leave(tun.ErrClosed))
		}
		if l.gate.Held() {
			return nil, Failure("read", l.From, l.gate.Rest())
		}
		if err := l.drain(); err != nil {
			return nil, Failure("read", l.From, l.gate.Leave(err))
		}
		if len(l.frames) > 0 {
			return l.frames, nil
		}
		if err := l.gate.WaitToRead(l.In); err != nil {
			return nil, Failure("read", l.From, l.gate.Leave(err))
		}
	}
}

// drain reads the frames that are in the queue, as far as there is room. If the device fails
// after it delivered frames, drain returns these; the next call fails again.
func (l *lane) drain() error {
	l.frames = l.frames[:0]
	in, taken := l.queue.In(), 0
	defer func() { l.queue.Take(taken) }()
	for len(l.frames) < len(l.buffers) {
		buffer := l.buffers[len(l.frames)]
		n, err := unix.Read(l.In, buffer)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && taken == 0:
			l.queue.Empty(in)
			return nil
		case err == unix.EAGAIN, err != nil && len(l.frames) > 0:
			return nil
		case err != nil:
			return err
		case n >= l.Header:
			taken++
			l.frames = append(l.frames, l.Lend(buffer[:n]))
		}
	}
	return nil
}

// Write writes each frame separately, except fragments that the kernel can make.
func (l *lane) Write(frames []tun.Frame) (refused int, err error) {
	if err := l.gate.Err(); err != nil {
		return len(frames), Failure("write", l.To, err)
	}
	cuts := l.Cuts()
	for len(frames) > 0 {
		n, e := l.put(frames, cuts)
		if e != nil {
			refused += n
			if err == nil {
				err = Failure("write", l.To, e)
			}
		}
		frames = frames[n:]
	}
	return refused, err
}

// put writes the first frame or, if the kernel fragments it, the datagram of which the first n
// frames are the fragments. It may wait until there is room.
func (l *lane) put(frames []tun.Frame, cuts bool) (n int, err error) {
	if cuts {
		if d, found := ufo.Find(frames); found {
			if err := l.backlog.Take(frames[:d.Len()]); err != nil {
				return d.Len(), err
			}
			return d.Len(), l.writer.WriteDatagram(l.Out, &d)
		}
	}
	if err := l.backlog.Take(frames[:1]); err != nil {
		return 1, err
	}
	return 1, l.writer.Write(l.Out, &frames[0])
}

// Reply makes one attempt.
func (l *lane) Reply(f tun.Frame) error {
	if err := l.gate.Err(); err != nil {
		return Failure("reply by", l.From, err)
	}
	if err := l.writer.Write(l.In, &f); err != nil {
		return Failure("reply by", l.From, err)
	}
	return nil
}
