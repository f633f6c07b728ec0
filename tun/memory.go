package tun

import (
	"context"
	"fmt"
	"sync"
)

// Memory is a port without a device. What is injected comes out of Read; what
// is written can be taken with Next.
type Memory struct {
	name    string
	ingress chan []byte
	egress  chan []byte

	once   sync.Once
	closed chan struct{}

	frames []Frame
}

// memoryDepth is how many frames a Memory holds in each direction before
// Inject blocks and Write refuses.
const memoryDepth = 4096

// poison is what a lent frame is overwritten with when its time is up, so that
// whoever keeps one finds out.
const poison = 0xdb

// NewMemory returns an open port.
func NewMemory(name string) *Memory {
	return &Memory{
		name:    name,
		ingress: make(chan []byte, memoryDepth),
		egress:  make(chan []byte, memoryDepth),
		closed:  make(chan struct{}),
	}
}

// Name implements [Port].
func (m *Memory) Name() string { return m.name }

// Inject makes copies of frames come out of Read, in order.
func (m *Memory) Inject(frames ...[]byte) {
	for _, f := range frames {
		select {
		case m.ingress <- append([]byte{}, f...):
		case <-m.closed:
			return
		}
	}
}

// Next returns the next frame that was written. The error is ctx's, where it
// was done first.
func (m *Memory) Next(ctx context.Context) ([]byte, error) {
	select {
	case f := <-m.egress:
		return f, nil
	default:
	}
	select {
	case f := <-m.egress:
		return f, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("read what %q was given: %w", m.name, ctx.Err())
	}
}

// Read implements [Port]. It overwrites the frames lent before.
func (m *Memory) Read() ([]Frame, error) {
	for _, f := range m.frames {
		for i := range f.Data {
			f.Data[i] = poison
		}
	}
	m.frames = m.frames[:0]
	select {
	case f := <-m.ingress:
		m.frames = append(m.frames, Frame{Data: f})
	case <-m.closed:
		return nil, fmt.Errorf("read %q: %w", m.name, ErrClosed)
	}
	for len(m.frames) < batch {
		select {
		case f := <-m.ingress:
			m.frames = append(m.frames, Frame{Data: f})
		default:
			return m.frames, nil
		}
	}
	return m.frames, nil
}

// Write implements [Port].
func (m *Memory) Write(frames []Frame) (refused int, err error) {
	for _, f := range frames {
		select {
		case m.egress <- append([]byte{}, f.Data...):
		default:
			refused++
			err = fmt.Errorf("write %q: full", m.name)
		}
	}
	return refused, err
}

// Send implements [Port].
func (m *Memory) Send(f Frame) error {
	_, err := m.Write([]Frame{f})
	return err
}

// Close implements [Port].
func (m *Memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}
