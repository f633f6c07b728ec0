package stack

import (
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// forwarder is a fast path in front of a validator. It forwards the fragments of datagrams that
// [verdictByID] accepts, as long as they arrive in order and are as long as the first. From the
// first fragment that is not, it passes up all fragments of the datagram to the validator,
// until so much time has passed since the last of them that the validator holds nothing of it.
type forwarder struct {
	datagrams map[forwarded]*progress
	count     int // fragments that it has forwarded
	handed    int // beginnings that the validator took over
}

type forwarded struct {
	id   uint32
	side verdict.Side
}

type progress struct {
	Beginning
	last    time.Time // when the last one arrived, forwarded or not
	timeout time.Duration
	slow    bool
	handed  bool
}

// install makes a validator ask for beginnings.
func (f *forwarder) install(o *Options) {
	if f != nil {
		f.datagrams = map[forwarded]*progress{}
		o.Begun = f.begun
	}
}

// forward reports whether a fragment is forwarded.
func (f *forwarder) forward(p *packet.Parsed, side verdict.Side, now time.Time) bool {
	k := forwarded{p.Fragment.ID, side}
	length := p.End - p.Fragment.Payload
	d := f.datagrams[k]
	if d != nil && (now.Sub(d.last) >= d.timeout || !d.slow && now.Sub(d.First) >= d.timeout) {
		delete(f.datagrams, k)
		d = nil
	}
	if d == nil {
		d = &progress{Beginning: Beginning{Unit: length, First: now}, timeout: 30 * time.Second}
		if p.Kind == packet.IPv6 {
			d.timeout = 60 * time.Second
		}
		d.slow = p.Fragment.Offset > 0 || !p.HoldsTransport() || verdictByID(p) != verdict.Passed
		f.datagrams[k] = d
	}
	d.last = now
	switch {
	case d.slow:
		return false
	case p.Fragment.Offset != d.Bytes, p.Fragment.More && length != d.Unit:
		d.slow = true
		return false
	case p.Fragment.More:
		d.Bytes += length
	default:
		delete(f.datagrams, k)
	}
	f.count++
	return true
}

func (f *forwarder) begun(p *packet.Parsed, side verdict.Side) (Beginning, bool) {
	d := f.datagrams[forwarded{p.Fragment.ID, side}]
	if d == nil || d.handed {
		return Beginning{}, false
	}
	d.slow, d.handed = true, true
	if d.Bytes > 0 {
		f.handed++
	}
	return d.Beginning, true
}
