package uring

import (
	"fragwall/tun"
	"fragwall/tun/tap"
)

// Port is a TAP whose lanes work over io_uring.
type Port struct{ *tap.TAP }

var _ tun.Port = (*Port)(nil)

// Open makes a TAP device; see [tap.Open].
func Open(c tun.Config) (*Port, error) {
	t, err := tap.Open(c)
	if err != nil {
		return nil, err
	}
	return &Port{t}, nil
}

// Import takes over a TAP device; see [tap.Import].
func Import(c tun.Config, from tun.Exported) (*Port, error) {
	t, err := tap.Import(c, from)
	if err != nil {
		return nil, err
	}
	return &Port{t}, nil
}

// Lanes returns lanes over io_uring. It needs Linux 6.7. If the kernel or a sandbox denies it,
// the error says why; the lanes of the TAP itself still work.
func (p *Port) Lanes(to tun.Port) ([]tun.Lane, error) {
	pairs, err := p.Pairs(to)
	if err != nil {
		return nil, err
	}
	return tap.MakeLanes(pairs, newLane)
}
