package stack

import (
	"fmt"
	"hash/fnv"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/packettest/reassembly"
	"fragwall/packet/verdict"
)

// op is one operation of a script: time passes, and a fragment arrives.
type op struct {
	id            uint8 // 0 to 3
	outside, mark bool  // the side; whether the payload differs
	more          bool
	odd           uint8 // bytes that the last fragment lacks of its last block, 0 to 7
	start         uint8 // in blocks
	blocks        uint8 // 1 to 16
	wait          uint8 // seconds, 0 to 31
}

const (
	opSize   = 4
	maxPause = 2 * time.Minute // beyond every deadline
)

func (o op) encode() []byte {
	flag := func(b bool, bit uint) uint8 {
		if b {
			return 1 << bit
		}
		return 0
	}
	return []byte{
		o.id&3 | flag(o.outside, 2) | flag(o.mark, 3) | flag(o.more, 4) | o.odd<<5,
		o.start, o.blocks - 1, 0xe0 | o.wait&31,
	}
}

func decodeOp(b []byte) op {
	o := op{
		id: b[0] & 3, outside: b[0]>>2&1 == 1, mark: b[0]>>3&1 == 1, more: b[0]>>4&1 == 1, odd: b[0] >> 5,
		start: b[1], blocks: b[2]%16 + 1,
	}
	if b[3] >= 0xe0 {
		o.wait = b[3] & 31
	}
	return o
}

func (o op) pause() time.Duration { return time.Duration(o.wait) * time.Second }

// frame returns the fragment. If far is set, a block is 32 times as long.
func (o op) frame(f family, far bool) ([]byte, verdict.Side) {
	unit := 8
	if far {
		unit *= 32
	}
	d := datagram(f, uint32(o.id), 64)
	body := packettest.Body(int(o.blocks) * unit)
	if o.mark {
		body[len(body)/2] ^= 1
	}
	if !o.more {
		body = body[:len(body)-int(o.odd)]
	}
	side := verdict.Inside
	if o.outside {
		side = verdict.Outside
	}
	return d.Fragment(int(o.start)*unit, body, o.more), side
}

// step is the outcome of a fragment: why it is dropped, and what the engine returns.
type step struct {
	why verdict.Reason
	out string
}

// oracle is a slow model of the engines. It keeps all fragments of each datagram and examines
// each of them again.
type oracle struct {
	family    family
	validator bool
	datagrams map[string]*slowDatagram
}

type slowDatagram struct {
	began    time.Time
	poisoned bool
	judged   bool
	verdict  verdict.Reason
	reassembly.Datagram
}

func newOracle(f family, validator bool) *oracle {
	return &oracle{family: f, validator: validator, datagrams: map[string]*slowDatagram{}}
}

// newQuietBench returns a bench that reports no errors to a test. It has one shard, so that
// each fragment expires datagrams in all of it.
func newQuietBench(validator bool, modify ...func(*Options)) *bench {
	l := &ledger{dropped: map[verdict.Reason]int{}}
	o := Options{TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second,
		Memory: 64 << 20, MaxFragments: 8192, MaxDatagrams: 1000, Ledger: l}
	for _, m := range modify {
		m(&o)
	}
	b := &bench{ledger: l, now: epoch}
	if validator {
		b.validator = NewValidator(o)
		b.table = b.validator.Table
	} else {
		b.reassembler = NewReassembler(o)
		b.table = b.reassembler.Table
	}
	return b
}

// held returns the number of frames that are held.
func (o *oracle) held() int {
	n := 0
	for _, d := range o.datagrams {
		if !d.poisoned && !(o.validator && d.judged) {
			n += len(d.Fragments)
		}
	}
	return n
}

func (o *oracle) add(p *packet.Parsed, frame []byte, side verdict.Side, now time.Time) step {
	timeout := 30 * time.Second
	if o.family == familyIPv6 {
		timeout = 60 * time.Second
	}
	for k, d := range o.datagrams {
		if now.Sub(d.began) >= timeout {
			delete(o.datagrams, k)
		}
	}
	k := fmt.Sprint(p.Fragment.ID, side)
	d := o.datagrams[k]
	if d == nil {
		d = &slowDatagram{began: now}
		o.datagrams[k] = d
	}
	if d.poisoned {
		return step{why: verdict.FragmentPoisoned}
	}
	n := reassembly.Fragment{Start: p.Fragment.Offset, End: p.Fragment.Offset + p.End - p.Fragment.Payload,
		More: p.Fragment.More, Data: frame[p.Fragment.Payload:p.End], Headers: p.Fragment.Headers}
	switch why := d.Objection(n, !o.validator); why {
	case verdict.Passed:
	case verdict.FragmentDuplicate:
		return step{why: why}
	default:
		d.poisoned = true
		return step{why: why}
	}
	d.Add(n)
	if o.validator {
		return o.pass(k, d, n, p)
	}
	if whole := d.Whole(); whole != nil {
		delete(o.datagrams, k)
		return step{out: fmt.Sprint(len(d.Fragments), " ", sum(whole))}
	}
	return step{}
}

// pass returns the outcome of a fragment that a validator accepts.
func (o *oracle) pass(k string, d *slowDatagram, n reassembly.Fragment, p *packet.Parsed) step {
	s := step{}
	switch {
	case n.Start == 0:
		d.judged, d.verdict = true, verdictByID(p)
		s = step{why: d.verdict}
		if d.verdict == verdict.Passed {
			s.out = fmt.Sprint(len(d.Fragments)) // including those that were held
		}
	case d.judged:
		s = step{why: d.verdict}
		if d.verdict == verdict.Passed {
			s.out = "1"
		}
	}
	if d.Whole() != nil {
		delete(o.datagrams, k)
	}
	return s
}

// sum is a short form of bytes for messages.
func sum(b []byte) string {
	h := fnv.New64a()
	h.Write(b)
	return fmt.Sprintf("%d bytes %x", len(b), h.Sum64())
}
