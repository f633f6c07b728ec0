package flow

import (
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// offload is a fast path that forwards as a test requests. Each flow has its own slot.
type offload struct {
	slots    map[uint32]*Progress
	told     map[uint32]Progress // progress passed to Store
	released map[uint32]bool
	forgot   []Key
}

func newOffload() *offload {
	return &offload{slots: map[uint32]*Progress{}, told: map[uint32]Progress{}, released: map[uint32]bool{}}
}

func (o *offload) Begin(slot uint32, p *Progress) { o.slots[slot] = new(*p) }

func (o *offload) Load(slot uint32, p *Progress) {
	*p = *o.slots[slot]
	for side := range o.slots[slot].Ways {
		o.slots[slot].Ways[side].Datagrams, o.slots[slot].Ways[side].Bytes = 0, 0
	}
}

func (o *offload) Store(slot uint32, p *Progress) { o.told[slot] = *p }

func (o *offload) Release(slot uint32, p *Progress) {
	o.released[slot] = true
	o.Load(slot, p)
}

func (o *offload) Forget(k *Key) { o.forgot = append(o.forgot, *k) }

// forward makes the fast path forward a datagram of 100 bytes.
func (o *offload) forward(slot uint32, from verdict.Side, now time.Duration) {
	w := &o.slots[slot].Ways[from]
	w.Datagrams++
	w.Bytes += 100
	w.Seen = now
}

// offloaded returns a table with an offload.
func offloaded(t *testing.T, limit int) (*exchanges, *offload) {
	e, o := &exchanges{TB: t, table: New(Options{Limit: limit})}, newOffload()
	e.table.SetOffload(o)
	return e, o
}

// attach gives a slot to the flow of a client's port.
func (e *exchanges) attach(slot uint32, number uint32, port uint16, protocol uint8) bool {
	v := view(verdict.Outside, host(number, 1), port, protocol, emptyUDP)
	var k Key
	return k.SetFast(v, false) && e.table.Attach(&k, 0, slot, e.now)
}

// TestSequenceNumbersWrapInFastPath has the fast path forward more bytes of a connection than there are
// sequence numbers. Then the hosts close it.
func TestSequenceNumbersWrapInFastPath(t *testing.T) {
	e, o := offloaded(t, 0)
	client := host(1, 1)
	e.connect(client)
	if !e.attach(1, 1, 7, packet.ProtocolTCP) {
		t.Fatal("an open connection was refused")
	}
	const much = 3 << 30
	client1, server1 := &o.slots[1].Ways[verdict.Outside], &o.slots[1].Ways[verdict.Inside]
	client1.End, client1.MaxEnd, server1.MaxAck = client1.End+much, client1.MaxEnd+much, server1.MaxAck+much
	o.slots[1].Last = Last{From: verdict.Inside, Seq: 201, Ack: client1.End, End: 201, Window: 1000}
	for range 1000 {
		o.forward(1, verdict.Outside, e.now)
	}
	if !e.tcp(verdict.Inside, client, flagFin|flagAck, 201, client1.End) {
		t.Error("the FIN does not belong to the flow")
	}
	if !o.released[1] {
		t.Error("the fast path may continue after a FIN")
	}
	if !e.tcp(verdict.Outside, client, flagAck, client1.End, 202) {
		t.Error("the ACK of the FIN does not belong to the flow")
	}
	if e.attach(2, 1, 7, packet.ProtocolTCP) {
		t.Error("a connection that is closing was offloaded")
	}
}

// TestFastFlowIsNotIdle has a table expire and list its flows while the fast path forwards.
func TestFastFlowIsNotIdle(t *testing.T) {
	e, o := offloaded(t, 0)
	e.udp(verdict.Outside, host(1, 1), 9)
	if !e.attach(1, 1, 9, packet.ProtocolUDP) {
		t.Fatal("refused")
	}
	for range 10 {
		e.now += 25 * time.Second
		o.forward(1, verdict.Outside, e.now)
		e.now += 10 * time.Second
		e.table.Expire(e.now, 1)
	}
	visited := 0
	err := e.table.Walk(func() time.Duration { return e.now }, func(int) error { return nil }, func(f *Flow, now time.Duration) error {
		visited++
		if f.Idle(now) != 10*time.Second || f.Sent(verdict.Outside) != (Traffic{Packets: 11, Bytes: 10*100 + 8}) {
			t.Errorf("idle for %v, %+v", f.Idle(now), f.Sent(verdict.Outside))
		}
		return nil
	})
	if err != nil || visited != 1 {
		t.Errorf("%d flows, %v", visited, err)
	}
	e.now += 21 * time.Second
	e.table.Expire(e.now, 1)
	if n := e.table.Len(); n != 0 || !o.released[1] {
		t.Errorf("%d flows remain, released: %v", n, o.released[1])
	}
}

// TestFastFlowIsNotEvicted fills a table with flows of one datagram each. One other flow
// appears to be just as idle, but the fast path forwards its datagrams.
func TestFastFlowIsNotEvicted(t *testing.T) {
	const limit = shards * 64
	e, o := offloaded(t, limit)
	e.udp(verdict.Outside, host(1, 1), 9)
	e.attach(1, 1, 9, packet.ProtocolUDP)
	for i := range uint32(3 * limit) {
		e.now += time.Millisecond
		o.forward(1, verdict.Outside, e.now)
		e.udp(verdict.Outside, host(1000+i, 1), 9)
	}
	if o.released[1] {
		t.Error("the flow was evicted")
	}
}

// TestSlotIsReused has the fast path reuse a slot.
func TestSlotIsReused(t *testing.T) {
	e, o := offloaded(t, 0)
	e.udp(verdict.Outside, host(1, 1), 9)
	e.attach(1, 1, 9, packet.ProtocolUDP)
	o.forward(1, verdict.Outside, e.now)
	var k Key
	k.SetFast(view(verdict.Outside, host(1, 1), 9, packet.ProtocolUDP, emptyUDP), false)
	e.table.Detach(&k, 2) // another slot
	if o.released[1] {
		t.Error("released for another slot")
	}
	e.table.Detach(&k, 1)
	if !o.released[1] || !e.table.Known(&k, e.now) {
		t.Errorf("released: %v, known: %v", o.released[1], e.table.Known(&k, e.now))
	}
	e.attach(3, 1, 9, packet.ProtocolUDP)
	e.attach(4, 1, 9, packet.ProtocolUDP) // replaces the slot
	if !o.released[3] || o.released[4] {
		t.Errorf("released: %v", o.released)
	}
	o.slots[4].Stopped = true
	e.udp(verdict.Outside, host(1, 1), 9)
	if o.released[4] {
		t.Error("a slot that was taken away was released")
	}
}

// TestBeginForgetsDrops begins flows. The fast path must forget that it drops their datagrams.
func TestBeginForgetsDrops(t *testing.T) {
	for _, anyVLANs := range []bool{false, true} {
		o := newOffload()
		e := &exchanges{TB: t, table: New(Options{AnyVLANs: anyVLANs})}
		e.table.SetOffload(o)
		v := view(verdict.Outside, host(1, 1), 9, packet.ProtocolUDP, emptyUDP)
		v.Tags[0], v.TagCount = packet.Tag{TPID: 0x8100, TCI: 5}, 1
		e.see(v)
		var k Key
		k.SetFast(v, anyVLANs)
		if len(o.forgot) != 1 || o.forgot[0] != k {
			t.Errorf("any VLAN: %v: %+v, want %+v", anyVLANs, o.forgot, k)
		}
	}
}
