package tuntest

import (
	"net/netip"

	"fragwall/tun"
)

// Sink is a lane without frames to read, for tests that pass frames in another way. It is
// called with the frames that are written, and returns the result of Write.
type Sink func(frames []tun.Frame) (refused int, err error)

var _ tun.Lane = Sink(nil)

// Discard accepts all frames.
var Discard Sink = func([]tun.Frame) (int, error) { return 0, nil }

// Name is "sink".
func (Sink) Name() string { return "sink" }

// Read returns that the lane is closed.
func (Sink) Read() ([]tun.Frame, error) { return nil, tun.ErrClosed }

// Behind is false.
func (Sink) Behind() bool { return false }

// Shed is 0.
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
