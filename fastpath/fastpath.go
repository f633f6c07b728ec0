package fastpath

import (
	"errors"

	"fragwall/packet/verdict"
)

// ErrUnavailable is wrapped where the kernel, or the rights of the process, do not
// allow a fast path.
var ErrUnavailable = errors.New("no fast path")

// FastPath has the kernel carry out verdicts.
type FastPath struct{}

// Open loads the programs and makes what they share with user space. Nothing is
// attached yet. The error says what is missing.
func Open(Options) (*FastPath, error) { return nil, ErrUnavailable }

// Attach puts the programs in front of a side: of the ingress of its NIC, and of the
// TAP by which user space sends to it. nic and tap are indexes of interfaces. A side
// whose TAP is a device of the host's own, as the inside of a sidecar is, has no NIC,
// which is 0: its frames come in by the egress of the TAP.
func (f *FastPath) Attach(side verdict.Side, nic, tap int) error { return ErrUnavailable }

// Detach takes the programs of a side away. Its frames take the way over the TAP.
func (f *FastPath) Detach(side verdict.Side) {}

// SetMTU sets the length in bytes of the longest packet that a side takes.
func (f *FastPath) SetMTU(side verdict.Side, bytes int) {}

// SetEgress says whether the link of a side is up. What is to leave by a side whose
// link is down takes the way over the TAP.
func (f *FastPath) SetEgress(side verdict.Side, up bool) {}

// SetDrops says what becomes of frames that are dropped.
func (f *FastPath) SetDrops(Drops) {}

// Suspend has all frames take the way over the TAP, for as long as it is set.
func (f *FastPath) Suspend(on bool) {}

// Stats returns what became of the frames so far.
func (f *FastPath) Stats() Stats { return Stats{Limit: Entries} }

// Close takes the programs away.
func (f *FastPath) Close() error { return nil }
