package flow

import (
	"errors"
	"fmt"
	"slices"
	"structs"
	"time"
	"unsafe"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Saved is a flow in the form in which another process of the same boot can take it over: its
// bytes are those in memory. A later version of the program may append fields. It reads missing
// fields as zero, and an earlier version ignores unknown ones. The numbers of states, timeouts,
// classes, segment kinds and flags mean the same in all versions with the same format
// (TestSavedFormat).
//
// The flow's rule is not among the fields: the process that takes over the flow judges it by
// its own policy.
type Saved struct {
	_           structs.HostLayout
	Key         Key
	Begun, Seen time.Duration // on the table's clock
	Sent        [verdict.Sides]Traffic
	Origin      verdict.Side
	State       State
	Timeout     uint8
	Class       uint8
	Marks       savedMarks
	_           [3]uint8
	TCP         savedTCP
	SCTP        savedSCTP
}

// SavedSize is the size of a [Saved], in bytes.
const SavedSize = int(unsafe.Sizeof(Saved{}))

// savedMarks are the boolean properties of a flow.
type savedMarks uint8

const (
	savedFragmented savedMarks = 1 << iota
	savedDenied
	savedReplied
	savedAssured
)

// savedTCP is the state of a connection.
type savedTCP struct {
	Ends [verdict.Sides]savedEnd // by the side that sends
	Last savedSegment
}

// savedEnd is what one end of a connection sent.
type savedEnd struct {
	End, MaxEnd, MaxWin, MaxAck uint32
	Scale                       uint8
	Flags                       endFlags
	_                           [2]uint8
}

// savedSegment is the last segment of a connection.
type savedSegment struct {
	Seq, Ack, End uint32
	Window        uint16
	Kind          kind
	From          verdict.Side
	Scale         uint8
	Flags         endFlags
	Marks         marks
	Retransmits   uint8
}

// savedSCTP is the state of an association.
type savedSCTP struct {
	Tags   [verdict.Sides]uint32
	Inits  [verdict.Sides]uint8 // 0 or 1
	Probed uint8                // also 0 or 1
	Prober verdict.Side
}

// AppendSaved appends flows as bytes, [SavedSize] each.
func AppendSaved(b []byte, flows []Saved) []byte {
	return append(b, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(flows))), len(flows)*SavedSize)...)
}

// ReadSaved appends to flows those in b, of size bytes each.
func ReadSaved(flows []Saved, b []byte, size int) ([]Saved, error) {
	if size <= 0 || len(b)%size != 0 {
		return flows, fmt.Errorf("%w: bytes: %d, bytes per flow: %d", errNoFlow, len(b), size)
	}
	for one := range slices.Chunk(b, size) {
		var s Saved
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&s)), SavedSize), one)
		flows = append(flows, s)
	}
	return flows, nil
}

// save returns the flow in the form in which another process can take it over.
func (f *Flow) save() Saved {
	s := Saved{
		Key: f.key, Begun: f.begun, Seen: f.seen, Sent: f.sent, Origin: f.Origin,
		State: f.State, Timeout: uint8(f.timeout), Class: uint8(f.class),
		SCTP: savedSCTP{
			Tags: f.sctp.tags, Inits: [verdict.Sides]uint8{bit(f.sctp.inits[0]), bit(f.sctp.inits[1])},
			Probed: bit(f.sctp.probed), Prober: f.sctp.prober,
		},
	}
	s.Marks.set(savedFragmented, f.Fragmented)
	s.Marks.set(savedDenied, f.Denied)
	s.Marks.set(savedReplied, f.replied)
	s.Marks.set(savedAssured, f.assured)
	for side, e := range f.tcp.ends {
		s.TCP.Ends[side] = savedEnd{End: e.end, MaxEnd: e.maxEnd, MaxWin: e.maxWin, MaxAck: e.maxAck, Scale: e.scale, Flags: e.flags}
	}
	l := &f.tcp.last
	s.TCP.Last = savedSegment{l.seq, l.ack, l.end, l.window, l.kind, l.from, l.scale, l.flags, l.marks, l.retransmits}
	return s
}

func (m *savedMarks) set(mark savedMarks, on bool) {
	if on {
		*m |= mark
	}
}

func bit(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

// Unwatched clears what is no longer valid once the flow has continued without the table: the
// sequence numbers of a connection. They are set anew from the first segment of each side, as
// the kernel does for a connection that returns from its fast path (flow_offload_fixup_tcp in
// net/netfilter/nf_flow_table_core.c).
func (s *Saved) Unwatched() {
	for side := range s.TCP.Ends {
		s.TCP.Ends[side].MaxWin = 0
	}
}

var errNoFlow = errors.New("not a flow")

// flow returns the flow, after checking that the table could have made it.
func (s *Saved) flow() (f Flow, err error) {
	if err := s.check(); err != nil {
		return f, err
	}
	f = Flow{
		key: s.Key, begun: min(s.Begun, s.Seen), seen: s.Seen, sent: s.Sent, Origin: s.Origin, Rule: none,
		Fragmented: s.Marks&savedFragmented != 0, Denied: s.Marks&savedDenied != 0,
		replied: s.Marks&savedReplied != 0, assured: s.Marks&savedAssured != 0,
		State: s.State, timeout: timeout(s.Timeout), class: class(s.Class),
		sctp: sctp{
			tags: s.SCTP.Tags, inits: [verdict.Sides]bool{s.SCTP.Inits[0] != 0, s.SCTP.Inits[1] != 0},
			probed: s.SCTP.Probed != 0, prober: s.SCTP.Prober,
		},
	}
	for side, e := range s.TCP.Ends {
		f.tcp.ends[side] = end{e.End, e.MaxEnd, e.MaxWin, e.MaxAck, e.Scale, e.Flags}
	}
	l := &s.TCP.Last
	f.tcp.last = last{l.Seq, l.Ack, l.End, l.Window, l.Kind, l.From, l.Scale, l.Flags, l.Marks, l.Retransmits}
	return f, nil
}

// check checks saved state against what the table relies on.
func (s *Saved) check() error {
	switch {
	case !s.Key.valid():
		return fmt.Errorf("%w: key %x", errNoFlow, s.Key)
	case s.Origin >= verdict.Sides, timeout(s.Timeout) >= timeouts, durations[s.Timeout] == 0, class(s.Class) >= classes:
		return fmt.Errorf("%w: origin %d, timeout %d, class %d", errNoFlow, s.Origin, s.Timeout, s.Class)
	case !s.State.of(&s.Key):
		return fmt.Errorf("%w: protocol %d in state %d", errNoFlow, s.Key.protocol(), s.State)
	case s.TCP.Last.Kind >= kinds, s.TCP.Last.From >= verdict.Sides, s.SCTP.Prober >= verdict.Sides:
		return fmt.Errorf("%w: a segment of kind %d from %d, a heartbeat from %d", errNoFlow, s.TCP.Last.Kind, s.TCP.Last.From, s.SCTP.Prober)
	}
	return nil
}

// valid reports whether a flow can have the key.
func (k *Key) valid() bool {
	const mapped = 0xffff // IPv4 addresses are ::ffff:a.b.c.d
	version, protocol := k.Ports&0xff, k.protocol()
	switch {
	case k.Ports>>48 != 0 || version > 1:
		return false
	case version == 0 && (k.Inside[0]|k.Outside[0] != 0 || k.Inside[1]>>32 != mapped || k.Outside[1]>>32 != mapped):
		return false
	}
	if k.isQuery() {
		number := int(uint16(k.Ports>>16) >> 1 & 0x7f)
		if protocol == packet.ProtocolICMPv6 {
			return number < len(queriesV6)
		}
		return number < len(queries)
	}
	return true
}

// isQuery reports whether the key is that of an ICMP query.
func (k *Key) isQuery() bool {
	kind := packet.IPv4
	if k.Ports&1 == 1 {
		kind = packet.IPv6
	}
	return isICMP(kind, k.protocol())
}

// of reports whether a flow with the key may be in the state.
func (s State) of(k *Key) bool {
	protocol := k.protocol()
	switch {
	case protocol == packet.ProtocolTCP:
		return s >= SynSent && s <= Close
	case protocol == packet.ProtocolSCTP:
		return s >= Closed && s <= HeartbeatSent
	case k.isQuery():
		return s == Query
	case repliesCount(protocol):
		return s == Unreplied || s == Replied
	}
	return s == Generic
}
