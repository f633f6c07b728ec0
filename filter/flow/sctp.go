package flow

import (
	"encoding/binary"
	"iter"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// sctp is the state of an association.
type sctp struct {
	tags [verdict.Sides]uint32 // verification tags of what each side sends; 0: unknown
	// inits are the sides that have sent an INIT since the last COOKIE ACK.
	inits [verdict.Sides]bool
	// probed is set if a HEARTBEAT had a tag other than the known one; prober is the side that
	// sent it. If the other side answers, the tag is right.
	probed bool
	prober verdict.Side
}

// SCTP chunk types (RFC 9260 §3.2).
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkHeartbeat        = 4
	chunkHeartbeatAck     = 5
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkError            = 9
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
)

const (
	sctpHeader  = 12 // bytes (RFC 9260 §3.1)
	chunkHeader = 4
	tagField    = 4    // offset of the verification tag in the header
	flagTag     = 0x01 // the T bit: the tag is that of the other direction
)

// chunk is a chunk of an SCTP packet.
type chunk struct {
	kind, flags uint8
	length      int    // as its header says
	contents    []byte // as much of them as there is, and what follows
}

// chunks yields the chunks of an SCTP packet, up to one without a whole header or a length.
func chunks(b []byte) iter.Seq[chunk] {
	return func(yield func(chunk) bool) {
		for at := sctpHeader; at+chunkHeader <= len(b); {
			c := chunk{b[at], b[at+1], int(binary.BigEndian.Uint16(b[at+2:])), b[at+chunkHeader:]}
			if !yield(c) || c.length == 0 {
				return
			}
			at += (c.length + 3) &^ 3
		}
	}
}

// tag returns the verification tag that an INIT or INIT ACK asks for.
func (c *chunk) tag() (tag uint32, ok bool) {
	const initHeader = 16
	if len(c.contents) < initHeader {
		return 0, false
	}
	return binary.BigEndian.Uint32(c.contents), true
}

// chunkSet is the set of chunk types below 64 in a packet.
type chunkSet uint64

func (s chunkSet) has(kinds ...uint8) bool {
	for _, kind := range kinds {
		if s>>kind&1 != 0 {
			return true
		}
	}
	return false
}

// readChunks returns the types of the chunks of a packet. It returns false for packets that no
// host accepts: without chunks, with a chunk without a length, or with a chunk that must be
// alone or first and is not (RFC 9260 §6.10; do_basic_checks in nf_conntrack_proto_sctp.c).
func readChunks(b []byte) (set chunkSet, ok bool) {
	if len(b) < sctpHeader {
		return 0, false
	}
	n, alone := 0, false
	for c := range chunks(b) {
		alone = alone || c.kind == chunkInit || c.kind == chunkInitAck || c.kind == chunkShutdownComplete
		first := c.kind == chunkCookieEcho || c.kind == chunkCookieAck
		if c.length == 0 || n > 0 && (alone || first) {
			return 0, false
		}
		if c.kind < 64 {
			set |= 1 << c.kind
		}
		n++
	}
	return set, n > 0
}

// afterChunk returns the state that a chunk leads to, as in the kernel (sctp_conntracks in
// nf_conntrack_proto_sctp.c), or invalid if there is none.
func afterChunk(state State, kind uint8, reply bool) State {
	if state == HeartbeatSent && reply {
		switch {
		case kind == chunkHeartbeatAck:
			return SCTPEstablished
		case kind != chunkHeartbeat && changesState(kind):
			return invalid
		}
	}
	switch kind {
	case chunkInit:
		switch {
		case state == HeartbeatSent:
			return CookieWait
		case !reply && (state == ShutdownSent || state == ShutdownReceived):
			return Closed
		}
	case chunkInitAck:
		if reply && state == Closed {
			return CookieWait
		}
	case chunkAbort:
		return Closed
	case chunkShutdown:
		switch {
		case state == SCTPEstablished && reply:
			return ShutdownReceived
		case state == SCTPEstablished:
			return ShutdownSent
		}
	case chunkShutdownAck:
		if state == ShutdownSent || state == ShutdownReceived || state == HeartbeatSent {
			return ShutdownAckSent
		}
	case chunkError:
		if reply && state == CookieEchoed {
			return Closed
		}
	case chunkCookieEcho:
		if state == CookieWait {
			return CookieEchoed
		}
	case chunkCookieAck:
		if state == CookieEchoed {
			return SCTPEstablished
		}
	case chunkShutdownComplete:
		if state == ShutdownAckSent {
			return Closed
		}
	}
	if state == HeartbeatSent && kind != chunkHeartbeat && kind != chunkHeartbeatAck && changesState(kind) {
		return Closed
	}
	return state
}

// changesState reports whether a chunk may lead to another state. DATA, SACK and some other
// types never do.
func changesState(kind uint8) bool {
	return chunkSet(1<<chunkInit | 1<<chunkInitAck | 1<<chunkHeartbeat | 1<<chunkHeartbeatAck | 1<<chunkAbort | 1<<chunkShutdown |
		1<<chunkShutdownAck | 1<<chunkError | 1<<chunkCookieEcho | 1<<chunkCookieAck | 1<<chunkShutdownComplete).has(kind)
}

// afterFirstChunk returns the state in which a chunk begins a flow, or invalid if it cannot
// begin one.
func afterFirstChunk(kind uint8) State {
	switch kind {
	case chunkShutdownAck:
		return ShutdownAckSent
	case chunkHeartbeat:
		return HeartbeatSent
	case chunkInit, chunkInitAck, chunkShutdown, chunkError, chunkCookieEcho, chunkHeartbeatAck:
		return Closed
	}
	return invalid
}

// beginSCTP begins an association with a packet of its originator. It returns false if the
// packet cannot begin one.
func (f *Flow) beginSCTP(v *packet.View) bool {
	set, ok := readChunks(v.Body)
	if !ok || set.has(chunkAbort, chunkShutdownComplete, chunkCookieAck) {
		return false
	}
	tag := binary.BigEndian.Uint32(v.Body[tagField:])
	for c := range chunks(v.Body) {
		switch {
		case afterFirstChunk(c.kind) == invalid:
			return false
		case c.kind == chunkHeartbeat, c.kind == chunkHeartbeatAck:
			f.sctp.tags[v.From] = tag
		case c.kind != chunkInit:
			f.sctp.tags[v.From.Other()] = tag
		}
	}
	return f.takeSCTP(v) != isInvalid
}

// takeSCTP judges a packet by the association: by its verification tag and by the states that
// its chunks lead to (RFC 9260 §8.5).
func (f *Flow) takeSCTP(v *packet.View) result {
	set, ok := readChunks(v.Body)
	if !ok {
		return isInvalid
	}
	a := &f.sctp
	tag := binary.BigEndian.Uint32(v.Body[tagField:])
	special := set.has(chunkInit, chunkShutdownComplete, chunkCookieEcho, chunkAbort, chunkShutdownAck, chunkHeartbeat, chunkHeartbeatAck)
	if !special && tag != a.tags[v.From] {
		return isInvalid
	}
	r := isRefreshed
	state := f.State
	for c := range chunks(v.Body) {
		switch a.fits(&c, set, tag, v.From, r == isKnown) {
		case isInvalid:
			return isInvalid
		case isKnown:
			r = isKnown
			continue
		}
		to := afterFirstChunk(c.kind)
		if f.State != notBegun {
			to = afterChunk(f.State, c.kind, v.From != f.Origin)
		}
		if to == invalid || !a.learn(&c, v.From) {
			return isInvalid
		}
		if c.kind == chunkInit && f.State == Closed && to == Closed && state != notBegun {
			r = isKnown // reuse of a port must not keep the flow alive
		}
		f.assured = f.assured || to == SCTPEstablished && v.From != f.Origin
		f.State = to
	}
	if r == isRefreshed {
		f.timeout = timeout(f.State)
	}
	return r
}

// fits judges a chunk by the verification tag of its packet, and records tags on a path that is
// new. It returns isKnown for a chunk without effect, and isRefreshed for one that may have an
// effect.
func (a *sctp) fits(c *chunk, set chunkSet, tag uint32, from verdict.Side, ignores bool) result {
	own, peer := &a.tags[from], &a.tags[from.Other()]
	switch c.kind {
	case chunkInit:
		return only(tag == 0)
	case chunkAbort, chunkShutdownComplete:
		if c.flags&flagTag != 0 {
			return only(tag == *peer)
		}
		return only(tag == *own)
	case chunkCookieEcho:
		return only(tag == *own)
	case chunkCookieAck:
		a.inits = [verdict.Sides]bool{}
		return isRefreshed
	case chunkHeartbeat, chunkHeartbeatAck:
	default:
		return isRefreshed
	}
	switch {
	case *own == 0:
		*own = tag
		return isRefreshed
	case tag == *own:
		a.probed = false
		return isRefreshed
	case set.has(chunkData), ignores:
		return isInvalid
	case c.kind == chunkHeartbeat:
		a.probed, a.prober = true, from
		return isKnown
	case !a.probed, a.prober == from:
		return isInvalid
	}
	a.probed = false
	*own, *peer = tag, 0
	return isRefreshed
}

func only(fits bool) result {
	if fits {
		return isRefreshed
	}
	return isInvalid
}

// learn records the tag that an INIT or INIT ACK asks for. It returns false if the other side
// is known to expect a different one.
func (a *sctp) learn(c *chunk, from verdict.Side) bool {
	if c.kind != chunkInit && c.kind != chunkInitAck {
		return true
	}
	tag, ok := c.tag()
	if !ok {
		return false
	}
	mine, theirs := &a.inits[from], &a.inits[from.Other()]
	known := &a.tags[from.Other()]
	if c.kind == chunkInit {
		if *known != tag { // otherwise it was retransmitted
			*mine, *theirs = true, *theirs && !*mine
		}
	} else if *known != tag && (!*theirs && *known != 0 || *mine && *theirs) {
		return false
	}
	*known = tag
	return true
}
