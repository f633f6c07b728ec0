package tuntest

import (
	"net/netip"

	"fragwall/tun"
)

// Sink is a lane that only writes, for tests that pass frames in another way. Write calls the
// function with the frames and returns its result.
type Sink func(frames []tun.Frame) (refused int, err error)

var _ tun.Lane = Sink(nil)

// Discard accepts all frames and does nothing with them.
var Discard Sink = func([]tun.Frame) (int, error) { return 0, nil }

// Name returns "sink".
func (Sink) Name() string { return "sink" }

// Read returns [tun.ErrClosed].
func (Sink) Read() ([]tun.Frame, error) { return nil, tun.ErrClosed }

// Behind returns false.
func (Sink) Behind() bool { return false }

// Shed returns 0.
func (Sink) Shed() uint64 { return 0 }

// Credit does nothing.
func (Sink) Credit(netip.Addr) {}

// Write calls the function.
func (s Sink) Write(frames []tun.Frame) (refused int, err error) { return s(frames) }

// Reply drops the frame.
func (Sink) Reply(tun.Frame) error { return nil }

// Hold does nothing.
func (Sink) Hold() error { return nil }

// Close does nothing.
func (Sink) Close() error { return nil }
