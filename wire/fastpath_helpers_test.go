package wire

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// memoryPath is a fast path in memory. It does slowly what a kernel would do in front of the
// lanes. It learns from the first lesson on, and assigns each slot only once.
type memoryPath struct {
	mode     packet.Mode
	timeouts [2]time.Duration // of datagrams in IPv4 and IPv6
	now      time.Time        // of the last frame
	started  time.Time

	mu sync.Mutex
	// mu guards:
	generation uint32
	anyVLANs   bool
	stateful   bool
	table      *filter.Table
	entries    map[flow.Key]*pathEntry
	slots      map[uint32]*pathEntry
	last       uint32 // slot
	counts     [verdict.Sides]FastCounts
	datagrams  map[pathDatagram]*pathProgress
	handed     int // beginnings handed over to the validator
	forgotten  int // drops of keys whose flow began
	expected   []flow.Key
}

// pathEntry is what is known about a key.
type pathEntry struct {
	slot     uint32
	ways     [verdict.Sides]pathWay
	progress flow.Progress
	stopped  bool
}

// pathWay is the verdict on datagrams with a key that arrive on a side.
type pathWay struct {
	generation       uint32
	whole, fragments bool // the verdict is on whole packets, or on first fragments
	verdict          filter.Verdict
	counter          *filter.Counter
	datagrams, bytes uint64 // not yet added to the counter
}

type pathDatagram struct {
	src, dst [16]byte
	vlans    packet.VLANs
	id       uint32
	kind     packet.Kind
	protocol uint8
	side     verdict.Side
}

// pathProgress is the part of a datagram's fragments that was forwarded.
type pathProgress struct {
	Beginning
	last         time.Time
	slow, handed bool
}

func newMemoryPath(mode packet.Mode) *memoryPath {
	l := limits()
	return &memoryPath{
		mode: mode, timeouts: [2]time.Duration{l.TimeoutIPv4, l.TimeoutIPv6},
		entries: map[flow.Key]*pathEntry{}, slots: map[uint32]*pathEntry{}, datagrams: map[pathDatagram]*pathProgress{},
	}
}

func (m *memoryPath) Start(started time.Time) { m.started = started }

func (m *memoryPath) Upkeep(time.Time) {}

func (m *memoryPath) Keys() []flow.Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.entries))
}

func (m *memoryPath) Expect(keys []flow.Key) { m.expected = append(m.expected, keys...) }

func (m *memoryPath) Yield(begun func(*packet.Parsed, verdict.Side, Beginning)) {
	m.evict(m.table, func() bool { return true })
	m.Harvest()
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, d := range m.datagrams {
		if d.handed || d.Bytes == 0 {
			continue
		}
		d.slow, d.handed = true, true
		p := packet.Parsed{Kind: k.kind, Src: netip.AddrFrom16(k.src), Dst: netip.AddrFrom16(k.dst), Protocol: k.protocol}
		if k.kind == packet.IPv4 {
			p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
		}
		p.Fragment = packet.Fragment{Present: true, ID: k.id}
		p.TagCount = uint8(copy(p.Tags[:], k.vlans[:k.vlans.Len()]))
		begun(&p, k.side, d.Beginning)
	}
}

func (m *memoryPath) Block(p *packet.Parsed, from verdict.Side) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.datagrams[datagramOf(p, from)] = &pathProgress{last: m.now, slow: true, handed: true}
}

func (m *memoryPath) elapsed() time.Duration { return m.now.Sub(m.started) }

func (m *memoryPath) Learn(lessons []Lesson) {
	for i := range lessons {
		m.learn(&lessons[i])
	}
}

func (m *memoryPath) learn(l *Lesson) {
	m.mu.Lock()
	if l.Verdict.Generation != m.generation {
		m.mu.Unlock()
		return
	}
	e := m.entries[l.Key]
	if e == nil || e.stopped {
		m.last++
		e = &pathEntry{slot: m.last}
		m.entries[l.Key], m.slots[e.slot] = e, e
	}
	m.mu.Unlock()
	if accept := l.Verdict.Action == verdict.Accept; accept && !l.Table.Attach(&l.Key, e.slot, m.elapsed()) ||
		!accept && l.Table.Known(&l.Key, m.elapsed()) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &e.ways[l.From]
	if counter := l.Table.Counter(l.From, l.Verdict.Rule); w.generation != m.generation || w.counter != counter || w.verdict.Reason != l.Verdict.Reason {
		m.harvest(w)
		*w = pathWay{generation: m.generation, verdict: l.Verdict, counter: counter}
	}
	w.whole, w.fragments = w.whole || !l.Fragmented, w.fragments || l.Fragmented
}

func (m *memoryPath) SetPolicy(t *filter.Table) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table = t
	m.generation, m.anyVLANs, m.stateful = t.Generation(), t.AnyVLANs(), t.Stateful()
}

func (m *memoryPath) Harvest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.slots {
		for side := range e.ways {
			m.harvest(&e.ways[side])
		}
	}
}

func (m *memoryPath) harvest(w *pathWay) {
	if w.counter != nil {
		w.counter.Add(w.datagrams, w.bytes)
	}
	w.datagrams, w.bytes = 0, 0
}

func (m *memoryPath) Counts(from verdict.Side) FastCounts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[from]
}

func (m *memoryPath) Entry(k *flow.Key, from verdict.Side) (FastEntry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[*k]
	if e == nil || e.stopped || e.ways[from].generation != m.generation {
		return FastEntry{}, false
	}
	w := &e.ways[from]
	return FastEntry{Action: w.verdict.Action, Reason: w.verdict.Reason, Rule: w.verdict.Rule, Whole: w.whole, Fragments: w.fragments}, true
}

func (m *memoryPath) Begin(slot uint32, p *flow.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slots[slot].progress = *p
}

func (m *memoryPath) Load(slot uint32, p *flow.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load(m.slots[slot], p)
}

func (m *memoryPath) load(e *pathEntry, p *flow.Progress) {
	*p = e.progress
	p.Stopped = e.stopped
	for side := range e.progress.Ways {
		e.progress.Ways[side].Datagrams, e.progress.Ways[side].Bytes = 0, 0
	}
}

func (m *memoryPath) Store(slot uint32, p *flow.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.slots[slot]
	e.progress.Last = p.Last
	for side := range e.progress.Ways {
		have, told := &e.progress.Ways[side], &p.Ways[side]
		have.End, have.MaxEnd, have.MaxAck = later(have.End, told.End), later(have.MaxEnd, told.MaxEnd), later(have.MaxAck, told.MaxAck)
		have.MaxWin = max(have.MaxWin, told.MaxWin)
	}
}

func (m *memoryPath) Release(slot uint32, p *flow.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slots[slot].stopped = true
	m.load(m.slots[slot], p)
}

func (m *memoryPath) Forget(k *flow.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[*k]; e != nil && !e.stopped {
		e.stopped = true
		m.forgotten++
	}
}

// evict removes the entries of some keys, as a full map does.
func (m *memoryPath) evict(t *filter.Table, chosen func() bool) {
	m.mu.Lock()
	slots := map[uint32]flow.Key{}
	for k, e := range m.entries {
		slots[e.slot] = k
	}
	m.mu.Unlock()
	for _, slot := range slices.Sorted(maps.Keys(slots)) {
		if k := slots[slot]; chosen() {
			t.Detach(&k, slot)
			m.mu.Lock()
			m.slots[slot].stopped = true
			m.mu.Unlock()
		}
	}
}

// pass reports whether a frame is handled before it reaches a lane, and whether it is then
// forwarded. Frames have no offload metadata.
func (m *memoryPath) pass(from verdict.Side, frame []byte, mtu int) (forwarded, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var p packet.Parsed
	if p.Decode(frame) != verdict.Passed || p.SourceRoute || p.TagCount > 1 || p.LLC > 0 || p.Length(frame) > mtu {
		return false, false
	}
	if p.Fragment.Present {
		return m.passFragment(from, frame, &p)
	}
	e, w := m.find(from, &p, frame)
	if w == nil || !w.whole || m.stateful && w.verdict.Action == verdict.Accept && !m.fits(from, e, &p, frame) {
		return false, false
	}
	return m.carryOut(from, e, w, frame, &p), true
}

// find returns the entry of a packet that starts with its transport header, and its verdict;
// nil if nothing is known.
func (m *memoryPath) find(from verdict.Side, p *packet.Parsed, frame []byte) (*pathEntry, *pathWay) {
	v := packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}
	var k flow.Key
	if !k.SetFast(&v, m.anyVLANs) {
		return nil, nil
	}
	e := m.entries[k]
	if e == nil || e.stopped || e.ways[from].generation != m.generation {
		return nil, nil
	}
	return e, &e.ways[from]
}

// carryOut counts a datagram by its verdict, and reports whether the verdict accepts it.
func (m *memoryPath) carryOut(from verdict.Side, e *pathEntry, w *pathWay, frame []byte, p *packet.Parsed) bool {
	bytes := uint64(p.End - p.Network)
	w.datagrams++
	w.bytes += bytes
	if w.verdict.Action != verdict.Accept {
		m.counts[from].Dropped[w.verdict.Reason]++
		m.counts[from].DroppedBytes += uint64(len(frame))
		return false
	}
	way := &e.progress.Ways[from]
	way.Datagrams++
	way.Bytes += bytes
	way.Seen = m.elapsed()
	m.forward(from, frame)
	return true
}

func (m *memoryPath) forward(from verdict.Side, frame []byte) {
	m.counts[from].Forwarded++
	m.counts[from].ForwardedBytes += uint64(len(frame))
}

// fits reports whether a host would accept a datagram of a flow by its transport header, and
// records the numbers of a TCP segment that it would accept.
func (m *memoryPath) fits(from verdict.Side, e *pathEntry, p *packet.Parsed, frame []byte) bool {
	v := packet.View{Parsed: p, From: from, Body: frame[p.Upper:p.End], BodyLength: p.End - p.Upper}
	seen := max(e.progress.Ways[0].Seen, e.progress.Ways[1].Seen)
	if m.elapsed()-seen > e.progress.Idle || !v.ChecksumValid() {
		return false
	}
	switch b := v.Body; p.Protocol {
	case packet.ProtocolUDP:
		if len(b) < 8 {
			return false
		}
		length := int(binary.BigEndian.Uint16(b[4:]))
		return length >= 8 && (length <= len(b) || v.Partial())
	case packet.ProtocolTCP:
		return !v.Partial() && len(b) >= 20 && b[13]&^0xc8 == 0x10 && noteSegment(&e.progress, from, b)
	}
	return true
}

// noteSegment records a segment with ACK, and perhaps PSH, ECE and CWR, if it is in the window
// (tcp_in_window in net/netfilter/nf_conntrack_proto_tcp.c).
func noteSegment(p *flow.Progress, from verdict.Side, b []byte) bool {
	sender, receiver := &p.Ways[from], &p.Ways[from.Other()]
	header := int(b[12]>>4) * 4
	seq, ack, window := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[14:])
	if header < 20 || header > len(b) || header > 20 && receiver.SACK {
		return false
	}
	end := seq + uint32(len(b)-header)
	floor := max(sender.MaxWin, 66000)
	misfit := int32(ack-receiver.End) > 0 ||
		int32(end-(sender.End-receiver.MaxWin-1)) <= 0 ||
		int32(ack-(receiver.End-floor-1)) <= 0
	switch beyond := int32(seq-sender.MaxEnd) > 0; {
	case !misfit && int32(end-sender.MaxEnd) > 0 && (!beyond || end-sender.MaxEnd+1 <= receiver.MaxWin):
		return false // it changes more than the numbers of one direction
	case misfit || beyond:
		if sender.Liberal {
			p.Last.From = from
		}
		return sender.Liberal
	}
	scaled := uint32(window) << sender.Scale
	sender.MaxWin = max(sender.MaxWin, scaled)
	sender.End = later(sender.End, end)
	sender.MaxAck = later(sender.MaxAck, ack)
	if int32(ack+scaled-(receiver.MaxEnd-1)) > 0 {
		receiver.MaxEnd = ack + max(scaled, 1)
	}
	next := flow.Last{From: from, Seq: seq, Ack: ack, End: end, Window: window}
	again := p.Last
	again.Retransmits = 0
	if again == next {
		next.Retransmits = min(p.Last.Retransmits+1, 3)
	}
	p.Last = next
	return true
}

// later returns the later of two sequence numbers.
func later(a, b uint32) uint32 {
	if int32(b-a) > 0 {
		return b
	}
	return a
}

// passFragment does for fragments what [memoryPath.pass] does for whole packets. In validation,
// it forwards the fragments of a datagram as long as they arrive in order and are as long as
// the first.
func (m *memoryPath) passFragment(from verdict.Side, frame []byte, p *packet.Parsed) (forwarded, done bool) {
	switch m.mode {
	case packet.ModeDrop:
		m.counts[from].Dropped[verdict.FragmentMode]++
		m.counts[from].DroppedBytes += uint64(len(frame))
		return false, true
	case packet.ModeValidate:
	default:
		return false, false
	}
	k := datagramOf(p, from)
	d := m.datagrams[k]
	timeout := m.timeouts[0]
	if p.Kind == packet.IPv6 {
		timeout = m.timeouts[1]
	}
	if d != nil && (m.now.Sub(d.last) >= timeout || !d.slow && m.now.Sub(d.First) >= timeout) {
		d = nil
	}
	length := p.End - p.Fragment.Payload
	var e *pathEntry
	var w *pathWay
	if d == nil {
		d = &pathProgress{Beginning: Beginning{Unit: length, First: m.now}, slow: true}
		if p.Fragment.Offset == 0 && p.HoldsTransport() && p.Upper == p.Fragment.Payload {
			e, w = m.find(from, p, frame)
			d.slow = w == nil || !w.fragments || w.verdict.Action != verdict.Accept || m.stateful && !m.fits(from, e, p, frame)
		}
		m.datagrams[k] = d
	}
	d.last = m.now
	if d.slow || p.Fragment.Offset != d.Bytes || p.Fragment.More && length != d.Unit {
		d.slow = true
		return false, false
	}
	d.Bytes += length
	if !p.Fragment.More {
		delete(m.datagrams, k)
	}
	if w == nil {
		m.forward(from, frame)
		return true, true
	}
	return m.carryOut(from, e, w, frame, p), true
}

func datagramOf(p *packet.Parsed, from verdict.Side) pathDatagram {
	k := pathDatagram{src: p.Src.As16(), dst: p.Dst.As16(), vlans: p.VLANs(), id: p.Fragment.ID, kind: p.Kind, side: from}
	if p.Kind == packet.IPv4 {
		k.protocol = p.Protocol
	}
	return k
}

func (m *memoryPath) Passed(p *packet.Parsed, from verdict.Side) (Beginning, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.datagrams[datagramOf(p, from)]
	if d == nil || d.handed {
		return Beginning{}, false
	}
	d.slow, d.handed = true, true
	if d.Bytes > 0 {
		m.handed++
	}
	return d.Beginning, true
}
