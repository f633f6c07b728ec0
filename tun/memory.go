package tun

import (
	"context"
	"fmt"
	"sync"
)

// Memory is a device without a kernel: what is injected comes out of the lane
// that reads it, what a lane writes can be taken with Next.
type Memory struct {
	name    string
	ingress chan Frame
	egress  chan Frame
}

// memoryDepth is how many frames a Memory holds in each direction before
// Inject blocks and a Write is refused.
const memoryDepth = 4096

// NewMemory returns an empty device.
func NewMemory(name string) *Memory {
	return &Memory{name: name, ingress: make(chan Frame, memoryDepth), egress: make(chan Frame, memoryDepth)}
}

// Inject makes copies of frames come out of Read, in order.
func (m *Memory) Inject(frames ...[]byte) {
	for _, f := range frames {
		m.InjectFrame(Frame{Data: f})
	}
}

// InjectFrame makes a copy of a frame come out of Read with its Offload.
func (m *Memory) InjectFrame(f Frame) { m.ingress <- f.copy() }

func (f *Frame) copy() Frame {
	return Frame{Data: append([]byte{}, f.Data...), Offload: f.Offload}
}

// Next returns the next frame that was written. The error is ctx's, where it
// was done first.
func (m *Memory) Next(ctx context.Context) (Frame, error) {
	select {
	case f := <-m.egress:
		return f, nil
	default:
	}
	select {
	case f := <-m.egress:
		return f, nil
	case <-ctx.Done():
		return Frame{}, fmt.Errorf("read what %q was given: %w", m.name, ctx.Err())
	}
}

// memoryLane is a lane between Memories.
type memoryLane struct {
	from, to *Memory
	once     sync.Once
	closed   chan struct{}
	frames   []Frame // lent
}

// memoryBatch is how many frames a Read returns at most.
const memoryBatch = 64

// poison is what a lent frame is overwritten with when its time is up, so that
// whoever keeps one finds out.
const poison = 0xdb

// Lane returns the lane from one Memory to another.
func (m *Memory) Lane(to *Memory) Lane {
	return &memoryLane{from: m, to: to, closed: make(chan struct{})}
}

// Name implements [Lane].
func (l *memoryLane) Name() string { return l.from.name + " to " + l.to.name }

// Read implements [Lane]. It overwrites the frames lent before.
func (l *memoryLane) Read() ([]Frame, error) {
	for _, f := range l.frames {
		for i := range f.Data {
			f.Data[i] = poison
		}
	}
	l.frames = l.frames[:0]
	select {
	case <-l.closed:
		return nil, fmt.Errorf("read %q: %w", l.from.name, ErrClosed)
	default:
	}
	select {
	case f := <-l.from.ingress:
		l.frames = append(l.frames, f)
	case <-l.closed:
		return nil, fmt.Errorf("read %q: %w", l.from.name, ErrClosed)
	}
	for len(l.frames) < memoryBatch {
		select {
		case f := <-l.from.ingress:
			l.frames = append(l.frames, f)
		default:
			return l.frames, nil
		}
	}
	return l.frames, nil
}

// Behind implements [Lane]: what tests inject waits on purpose.
func (l *memoryLane) Behind() bool { return false }

// Write implements [Lane].
func (l *memoryLane) Write(frames []Frame) (refused int, err error) {
	for i := range frames {
		select {
		case l.to.egress <- frames[i].copy():
		default:
			refused++
			err = fmt.Errorf("write %q: full", l.to.name)
		}
	}
	return refused, err
}

// Reply implements [Lane].
func (l *memoryLane) Reply(f Frame) error {
	select {
	case l.from.egress <- f.copy():
		return nil
	default:
		return fmt.Errorf("reply by %q: full", l.from.name)
	}
}

// Close implements [Lane].
func (l *memoryLane) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
