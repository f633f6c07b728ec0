package tuntest

import (
	"fmt"
	"net/netip"
	"sync"

	"fragwall/tun"
)

// lane is a lane between Ports.
type lane struct {
	from, to *Port
	once     sync.Once
	closed   chan struct{}
	held     chan struct{} // has a value if a hold is pending
	frames   []tun.Frame   // valid until the next Read
}

var _ tun.Lane = (*lane)(nil)

// batch is the maximum number of frames that a Read returns.
const batch = 64

// poison overwrites frames that are no longer valid, so that tests detect code that keeps them.
const poison = 0xdb

// Lane returns a lane to another port.
func (p *Port) Lane(to *Port) tun.Lane {
	return &lane{from: p, to: to, closed: make(chan struct{}), held: make(chan struct{}, 1)}
}

// Name returns the names of the two ports.
func (l *lane) Name() string { return l.from.name + " to " + l.to.name }

// Read returns the injected frames, and overwrites those of the previous Read.
func (l *lane) Read() ([]tun.Frame, error) {
	for _, f := range l.frames {
		for i := range f.Data {
			f.Data[i] = poison
		}
	}
	l.frames = l.frames[:0]
	select {
	case <-l.closed:
		return nil, fmt.Errorf("read %q: %w", l.from.name, tun.ErrClosed)
	default:
	}
	select {
	case <-l.held:
		return nil, fmt.Errorf("read %q: %w", l.from.name, tun.ErrHeld)
	default:
	}
	select {
	case f := <-l.from.ingress:
		l.frames = append(l.frames, f)
	case <-l.held:
		return nil, fmt.Errorf("read %q: %w", l.from.name, tun.ErrHeld)
	case <-l.closed:
		return nil, fmt.Errorf("read %q: %w", l.from.name, tun.ErrClosed)
	}
	for len(l.frames) < batch {
		select {
		case f := <-l.from.ingress:
			l.frames = append(l.frames, f)
		default:
			return l.frames, nil
		}
	}
	return l.frames, nil
}

// Behind returns false: a test may inject many frames at once.
func (l *lane) Behind() bool { return false }

// Shed returns 0: Inject waits for room.
func (l *lane) Shed() uint64 { return 0 }

// Credit does nothing.
func (l *lane) Credit(netip.Addr) {}

// Write refuses the frames for which there is no room.
func (l *lane) Write(frames []tun.Frame) (refused int, err error) {
	for i := range frames {
		select {
		case l.to.egress <- copyOf(frames[i]):
		default:
			refused++
			err = fmt.Errorf("write %q: full", l.to.name)
		}
	}
	return refused, err
}

// Reply writes to the port that the lane reads.
func (l *lane) Reply(f tun.Frame) error {
	select {
	case l.from.egress <- copyOf(f):
		return nil
	default:
		return fmt.Errorf("reply by %q: full", l.from.name)
	}
}

// Hold wakes a Read.
func (l *lane) Hold() error {
	select {
	case l.held <- struct{}{}:
	default: // one is pending
	}
	return nil
}

// Close wakes a Read.
func (l *lane) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
