package tuntest

import (
	"context"
	"fmt"
	"sync"

	"fragwall/tun"
)

// Port is a port without a device: a lane reads the frames that were injected, and Next returns
// the frames that a lane wrote.
type Port struct {
	name    string
	ingress chan tun.Frame
	egress  chan tun.Frame

	mu sync.Mutex
	// mu guards:
	mtu     int
	carrier bool
	joined  bool
	nic     int

	collectErrors []error // of the next calls of Collect
	closed        bool
}

var _ tun.Port = (*Port)(nil)

// depth is the number of frames that a port holds in each direction. If it is full, Inject blocks
// and Write refuses.
const depth = 4096

// NewPort returns an empty port with a carrier.
func NewPort(name string) *Port {
	return &Port{name: name, carrier: true, ingress: make(chan tun.Frame, depth), egress: make(chan tun.Frame, depth)}
}

// Inject passes copies of frames to the lane that reads the port, in order.
func (p *Port) Inject(frames ...[]byte) {
	for _, f := range frames {
		p.InjectFrame(tun.Frame{Data: f})
	}
}

// InjectFrame passes a copy of a frame, with its Offload, to the lane that reads the port.
func (p *Port) InjectFrame(f tun.Frame) { p.ingress <- copyOf(f) }

func copyOf(f tun.Frame) tun.Frame {
	return tun.Frame{Data: append([]byte{}, f.Data...), Offload: f.Offload}
}

// Next waits for the next frame that a lane wrote. If ctx ends first, Next returns its error.
func (p *Port) Next(ctx context.Context) (tun.Frame, error) {
	select {
	case f := <-p.egress:
		return f, nil
	default:
	}
	select {
	case f := <-p.egress:
		return f, nil
	case <-ctx.Done():
		return tun.Frame{}, fmt.Errorf("read what %q was given: %w", p.name, ctx.Err())
	}
}

// Name returns the name given to [NewPort].
func (p *Port) Name() string { return p.name }

// Index returns 0: the port is not a device of the kernel.
func (p *Port) Index() int { return 0 }

// Lanes returns one lane to another port of this type.
func (p *Port) Lanes(to tun.Port) ([]tun.Lane, error) {
	other, ok := to.(*Port)
	if !ok {
		return nil, fmt.Errorf("join %q to %q: that is not in memory", p.name, to.Name())
	}
	return []tun.Lane{p.Lane(other)}, nil
}

// Fallbacks returns none.
func (p *Port) Fallbacks() []tun.Fallback { return nil }

// Missed returns 0: frames wait until they are read.
func (p *Port) Missed() (frames uint64, err error) { return 0, nil }

// SetMTU records the MTU.
func (p *Port) SetMTU(mtu int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mtu = mtu
	return nil
}

// MTU returns the MTU of the last SetMTU in bytes, 0 before.
func (p *Port) MTU() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mtu
}

// FailCollect makes the next calls of Collect fail, one for each error.
func (p *Port) FailCollect(errs ...error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.collectErrors = errs
}

// Collect records the NIC.
func (p *Port) Collect(nic int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if nic != 0 && len(p.collectErrors) > 0 {
		err := p.collectErrors[0]
		p.collectErrors = p.collectErrors[1:]
		return err
	}
	p.nic = nic
	return nil
}

// Collected returns 5 if the port collects from a NIC, otherwise 0.
func (p *Port) Collected() uint64 {
	if p.NIC() == 0 {
		return 0
	}
	return 5
}

// NIC returns the argument of the last Collect, 0 before.
func (p *Port) NIC() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nic
}

// SetJoined records whether the port is joined to a NIC.
func (p *Port) SetJoined(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.joined = on
}

// Joined returns the value of the last SetJoined, false before.
func (p *Port) Joined() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.joined
}

// SetCarrier records whether there is a carrier.
func (p *Port) SetCarrier(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.carrier = on
	return nil
}

// Carrier returns the value of the last SetCarrier, true before.
func (p *Port) Carrier() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.carrier
}

// Export returns nothing.
func (p *Port) Export() (tun.Exported, error) { return tun.Exported{}, nil }

// Close records that the port was closed.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// Closed reports whether the port was closed.
func (p *Port) Closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}
