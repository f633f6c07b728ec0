package tuntest

import (
	"net/netip"

	"fragwall/tun"
)

// Sink is a lane with nothing to read, for whoever gets frames by another way. It is
// called with what is written, and returns what Write does.
type Sink func(frames []tun.Frame) (refused int, err error)

var _ tun.Lane = Sink(nil)

// Discard takes everything.
var Discard Sink = func([]tun.Frame) (int, error) { return 0, nil }

// Name is "sink".
func (Sink) Name() string { return "sink" }

// Read finds the lane closed.
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
