package device

import (
	"log/slog"
	"slices"

	"fragwall/tun"
	"fragwall/tun/uring"
)

// Open makes a TAP device and brings it up.
func Open(c tun.Config) (tun.Port, error) {
	p, err := uring.Open(c)
	if err != nil {
		return nil, err
	}
	return &port{Port: p}, nil
}

// Import takes over a device that another process exported.
func Import(c tun.Config, from tun.Exported) (tun.Port, error) {
	p, err := uring.Import(c, from)
	if err != nil {
		return nil, err
	}
	return &port{Port: p}, nil
}

// port is a TAP whose lanes use io_uring if possible.
type port struct {
	*uring.Port
	denied []tun.Fallback // the error of io_uring, if it is unavailable
}

var _ tun.Port = (*port)(nil)

// Lanes returns lanes over io_uring or, if they fail, lanes with one system call per frame.
func (p *port) Lanes(to tun.Port) ([]tun.Lane, error) {
	lanes, err := p.Port.Lanes(to)
	if err == nil {
		return lanes, nil
	}
	p.denied = []tun.Fallback{{Level: slog.LevelWarn, Message: "io_uring is unavailable: each frame takes a system call", Err: err}}
	return p.TAP.Lanes(to)
}

// Fallbacks returns the fallbacks of the TAP and, after Lanes, that of io_uring.
func (p *port) Fallbacks() []tun.Fallback { return slices.Concat(p.TAP.Fallbacks(), p.denied) }
