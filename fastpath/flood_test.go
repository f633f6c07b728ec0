package fastpath

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// lessonOf returns the lesson of a packet of a flow, by the flow's number.
func lessonOf(t *filter.Table, number uint32, action verdict.Action) wire.Lesson {
	k := flow.Key{Inside: [2]uint64{0, 0xffff<<32 | 10<<24 | uint64(number)}, Outside: [2]uint64{0, 0xffff<<32 | 192<<24}, Ports: 1000<<32 | 53<<16 | packet.ProtocolUDP<<8}
	return wire.Lesson{Key: k, Table: t, Verdict: filter.Verdict{Generation: t.Generation(), Action: action}}
}

func learning(t *testing.T, o Options) (*FastPath, *filter.Table) {
	t.Helper()
	f := open(t, o)
	table := filter.Compile(&filter.Policy{Default: verdict.Accept}, nil)
	f.Start(time.Now())
	f.SetPolicy(table)
	return f, table
}

// TestFlood checks that flows of one packet get no entries and take no system call, and that
// flows of more packets get at most the budget of entries between two upkeeps.
func TestFlood(t *testing.T) {
	f, table := learning(t, Options{Entries: 16384})
	for i := range uint32(100_000) {
		f.Learn([]wire.Lesson{lessonOf(table, i, verdict.Accept)})
	}
	if n := f.Stats().Entries; n > 10 {
		t.Errorf("flows of one packet have %d entries", n)
	}
	for i := range uint32(10_000) {
		l := lessonOf(table, 1<<20|i, verdict.Accept)
		f.Learn([]wire.Lesson{l, l, l})
	}
	budget := f.entries.perUpkeep()
	if n := f.Stats().Entries; n < budget || n > budget+10 {
		t.Errorf("flows of three packets have %d entries between two upkeeps, want %d", n, budget)
	}
}

// TestEviction checks that new flows get the slots of idle ones if slots run out, and that busy
// flows keep theirs.
func TestEviction(t *testing.T) {
	f, table := learning(t, Options{Entries: 64})
	enter := func(number uint32) bool {
		l := lessonOf(table, number, verdict.Accept)
		f.budget = 100
		f.Learn([]wire.Lesson{l, l})
		_, found := f.index[l.Key]
		return found
	}
	for i := range uint32(64) {
		if !enter(i) {
			t.Fatalf("flow %d has no entry", i)
		}
	}
	if enter(64) {
		t.Fatal("there is one entry too many")
	}
	busy := lessonOf(table, 7, verdict.Accept)
	slot := f.index[busy.Key]
	f.memory.slots[slot].Ways[0].Frames = 1000
	for range 20 { // all but one are idle
		later := monotonic() + idleAfter + 1
		f.memory.slots[slot].Ways[0].Seen = later
		f.mu.Lock()
		idle := f.idleEntries(later)
		f.mu.Unlock()
		f.takeAway(idle)
	}
	f.mu.Lock()
	f.deleteRetired(monotonic())
	f.freeRested(monotonic() + rest)
	f.mu.Unlock()
	if n := f.Stats().Entries; n != 1 {
		t.Errorf("%d entries remain, want the busy one", n)
	}
	if _, found := f.index[busy.Key]; !found {
		t.Error("the busy flow has no entry")
	}
	if !enter(64) {
		t.Error("no slot is free")
	}
}

// TestCountersSurvive checks that the counts of a flow are neither lost nor counted twice when
// its slot goes to another flow.
func TestCountersSurvive(t *testing.T) {
	r := newRig(t, onlyPort53(), packet.ModeReassemble)
	for i := range 5 {
		src := netip.AddrPortFrom(client4.Addr(), uint16(41000+i))
		frame := packettest.UDP(src, server4, packettest.Body(64)).Frame()
		for range 5 {
			r.send(verdict.Inside, frame)
			r.settle()
		}
		r.takeAway(r.selectEntries(func(*entry) bool { return true }))
		r.send(verdict.Inside, frame)
		r.mu.Lock()
		r.deleteRetired(monotonic())
		r.freeRested(monotonic() + rest)
		r.mu.Unlock()
		r.agree()
	}
	if r.Stats().Entries != 0 || r.ways[forwarded] == 0 {
		t.Errorf("%v: %+v", r.ways, r.Stats())
	}
}

// TestGeneration checks that the programs do not apply verdicts of an older policy.
func TestGeneration(t *testing.T) {
	r := newRig(t, onlyPort53(), packet.ModeReassemble)
	frame := packettest.UDP(client4, server4, packettest.Body(64)).Frame()
	for range 3 {
		r.send(verdict.Inside, frame)
	}
	r.settle()
	if way := r.send(verdict.Inside, frame); way != forwarded {
		t.Fatal(way)
	}
	deny := &filter.Policy{ARP: verdict.Accept}
	r.fast.Reload(deny)
	r.plain.Reload(deny)
	if way := r.send(verdict.Inside, frame); way != passedUp {
		t.Fatalf("after a reload: %v", way)
	}
	for range 3 {
		r.send(verdict.Inside, frame)
	}
	if way := r.send(verdict.Inside, frame); way != dropped {
		t.Fatalf("by the new policy: %v", way)
	}
	r.agree()
}

// TestTwoCPUs has two CPUs process the fragments of a datagram at the same time. Each fragment
// is forwarded at most once, and user space learns which ones the program forwarded.
func TestTwoCPUs(t *testing.T) {
	f, table := learning(t, Options{Mode: packet.ModeValidate})
	d := packettest.UDP(client4, server4, packettest.Body(8000))
	l := wire.Lesson{Table: table, Fragmented: true, Verdict: filter.Verdict{Generation: table.Generation(), Action: verdict.Accept}}
	var first packet.Parsed
	first.Decode(d.Fragments(1480)[0])
	v := packet.View{Parsed: &first, From: verdict.Inside}
	if !l.Key.SetFast(&v, false) {
		t.Fatal("no key")
	}
	f.Learn([]wire.Lesson{l, l})
	calmAll := func() {
		for i := range f.memory.orders {
			calm(&f.memory.orders[i])
		}
	}
	rounds, whole, part := 3000, 0, 0 // datagrams
	if testing.Short() {
		rounds = 300
	}
	for round := range rounds {
		d.ID = uint32(round)
		frames := d.Fragments(1480)
		calmAll()
		outcomes := make([]outcome, len(frames))
		var sides sync.WaitGroup
		for cpu := range 2 {
			sides.Go(func() {
				for i := range frames {
					if (i+round)%2 == cpu {
						outcomes[i] = run(t, f.objects.FromInside, frames[i], 0)
					}
				}
			})
		}
		sides.Wait()
		passed, up := 0, 0
		for i, way := range outcomes {
			if way == forwarded {
				if up > 0 && i > up {
					// A later fragment passes only if all before it did.
					t.Fatalf("round %d: %v", round, outcomes)
				}
				passed += payloadOf(frames[i])
			} else if up == 0 {
				up = i + 1
			}
		}
		var p packet.Parsed
		p.Decode(frames[1])
		begun, ok := f.Passed(&p, verdict.Inside)
		switch {
		case up == 0: // all were forwarded, so the slot is free
			whole++
			if ok {
				t.Fatalf("round %d: %v, and the kernel knows %+v", round, outcomes, begun)
			}
		case passed > 0:
			part++
			if !ok || begun.Bytes != passed {
				t.Fatalf("round %d: %v, %d bytes: %+v %v", round, outcomes, passed, begun, ok)
			}
		}
	}
	if whole+part == 0 {
		t.Error("nothing was forwarded")
	}
	t.Logf("%d datagrams forwarded completely, %d in part", whole, part)
}

func payloadOf(frame []byte) int { return int(binary.BigEndian.Uint16(frame[16:])) - packet.SizeIPv4 }

// TestStoppedWhileLearned stops an entry while a lane learns it. The entry keeps its key and
// its slot until the lane has finished: a key that is entered later would lead to the slot of
// another flow.
func TestStoppedWhileLearned(t *testing.T) {
	f, table := learning(t, Options{Entries: 64})
	l := lessonOf(table, 1, verdict.Accept)
	slot, made := f.place(&l)
	if !made {
		t.Fatal("no entry")
	}
	f.takeAway([]uint32{slot})
	later := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.deleteRetired(monotonic() - 2*rest)
		f.freeRested(monotonic())
	}
	later()
	if !f.enterKey(&l.Key, slot) {
		t.Fatal("the key is not entered")
	}
	if f.decide(&l, slot) {
		t.Error("a stopped entry decides")
	}
	f.unpin(slot)
	later()
	key, found := programKey(&l.Key), uint32(0)
	if err := f.objects.Flows.Lookup(&key, &found); !isMissing(err) {
		t.Errorf("the kernel still has the key, with slot %d: %v", found, err)
	}
	if n := f.Stats().Entries; n != 0 {
		t.Errorf("%d entries remain", n)
	}
}

// TestLeftWhileLearned checks that an entry has no effect if, since a lane began to learn it,
// the flow is watched or drops were left to user space.
func TestLeftWhileLearned(t *testing.T) {
	for name, leave := range map[string]func(*FastPath){
		"watched": func(f *FastPath) { f.Watch(func(*flow.Key) bool { return true }) },
		"drops":   func(f *FastPath) { f.SetDrops(DropNone) },
	} {
		t.Run(name, func(t *testing.T) {
			f, table := learning(t, Options{Entries: 64})
			leave(f) // finds no entry
			l := lessonOf(table, 1, verdict.Drop)
			f.learn(&l)
			slot := f.index[l.Key]
			if flags := f.memory.slots[slot].Flags[l.From]; flags != 0 {
				t.Errorf("the entry decides: %#x", flags)
			}
			if !f.entries.all[slot].stopped {
				t.Error("the entry remains")
			}
		})
	}
}
