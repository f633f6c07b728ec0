package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/tun"
)

// saved returns the saved state of a wire after random traffic.
func saved(tb testing.TB, seed uint64, mode packet.Mode) []byte {
	tb.Helper()
	g := &traffic{Rand: rand.New(rand.NewPCG(seed, 23)), mode: mode, stateful: true}
	s := newStepper(g)
	for at := began; at.Before(began.Add(2 * time.Second)); at = at.Add(10 * time.Millisecond) {
		from, frame := g.frame()
		s.Forward(from, tun.Frame{Data: frame}, at)
	}
	var b bytes.Buffer
	if err := s.Save(&b, AllFlows|Rest); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func newStepper(g *traffic) *Stepper {
	policy := g.policy()
	policy.Default = verdict.Accept
	return newStepperOf(Config{Policy: policy, Mode: g.mode, Sides: sides(&script{}, &script{}), Fragments: limits()})
}

// newStepperOf returns a stepper whose boot ID is the same on every machine, and so are the
// streams that it saves.
func newStepperOf(c Config) *Stepper {
	s := NewStepper(c)
	s.bootID = "00000000-0000-0000-0000-000000000000"
	return s
}

// TestRestoreRefuses gives a wire streams that it cannot restore.
func TestRestoreRefuses(t *testing.T) {
	whole := saved(t, 1, packet.ModeReassemble)
	stream := func(h streamHeader) []byte {
		var b bytes.Buffer
		w := newChunkWriter(&b)
		for _, c := range []chunk{{Header: &h}, {Last: true}} {
			if err := w.write(&c); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	good := streamHeader{Format: Format, Boot: newStepperOf(Config{Policy: acceptAll()}).bootID}
	other, booted, future := good, good, good
	other.Format, booted.Boot, future.Time = Format+1, "other", time.Hour*1e6
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("GET / HTTP/1.1\r\n\r\n"), "a part": whole[:len(whole)-1], "a long chunk": {0xff, 0xff, 0xff, 0xff},
		"another format": stream(other), "another boot": stream(booted), "the future": stream(future),
	} {
		s := newStepperOf(Config{Policy: acceptAll()})
		s.advance(began)
		if err := s.Restore(bytes.NewReader(b)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newStepperOf(Config{Policy: acceptAll()})
	s.advance(began)
	if err := s.Restore(bytes.NewReader(stream(good))); err != nil {
		t.Error(err)
	}
}

// FuzzRestore gives a wire any stream. The wire refuses it, or it works with the restored
// state: that is judged, expires, and does not exceed the limits.
func FuzzRestore(f *testing.F) {
	for i, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate} {
		for seed := range uint64(4) {
			f.Add(uint8(i), saved(f, seed, mode))
		}
	}
	f.Fuzz(func(t *testing.T, mode uint8, b []byte) {
		g := &traffic{Rand: rand.New(rand.NewPCG(uint64(len(b)), 24)), mode: []packet.Mode{packet.ModeReassemble, packet.ModeValidate}[mode%2], stateful: true}
		s := newStepper(g)
		defer s.Close()
		at := began.Add(3 * time.Second)
		s.advance(at)
		if s.Restore(bytes.NewReader(b)) != nil {
			return
		}
		s.look()
		if u := s.Usage(); u.Bytes > limits().Memory || u.Datagrams > limits().MaxDatagrams {
			t.Fatalf("%+v", u)
		}
		flowsOf(t.Fatalf, s)
		for range 50 {
			from, frame := g.frame()
			s.Forward(from, tun.Frame{Data: frame}, at)
			at = at.Add(10 * time.Millisecond)
		}
		s.advance(at.Add(2 * time.Minute))
		if u := s.Usage(); u.Datagrams != 0 {
			t.Fatalf("%+v, after all timeouts", u)
		}
	})
}

// TestRestoreKeepsSecrets has a wire with tables take over from one without. The new wire keeps
// the secrets of its hashes, since the other has none.
func TestRestoreKeepsSecrets(t *testing.T) {
	var b bytes.Buffer
	old := newStepperOf(Config{Policy: acceptAll(), Mode: packet.ModeDrop, Sides: sides(&script{}, &script{})})
	defer old.Close()
	old.advance(began)
	if err := old.Save(&b, AllFlows|Rest); err != nil {
		t.Fatal(err)
	}
	s := newStepper(&traffic{Rand: rand.New(rand.NewPCG(1, 23)), mode: packet.ModeReassemble, stateful: true})
	defer s.Close()
	s.advance(began)
	flows, fragments := s.Policy().FlowTable().Secret(), s.table.Hash()
	if err := s.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if s.Policy().FlowTable().Secret() != flows || s.table.Hash() != fragments {
		t.Error("a secret changed")
	}
}

// TestRestoreExpects checks that a fast path expects the flows that the fast path of the old
// wire knew, if both policies make the same keys of flows.
func TestRestoreExpects(t *testing.T) {
	for _, c := range []struct {
		parts    Parts
		stateful bool
		anyVLANs bool // of the new wire
		want     int
	}{
		{AllFlows, true, false, 1},
		{AllFlows, false, false, 1},
		{AllFlows, true, true, 0},
		{AllFlows | Unwatched, true, false, 0},
	} {
		path := [...]*memoryPath{newMemoryPath(packet.ModeReassemble), newMemoryPath(packet.ModeReassemble)}
		path[0].entries[flow.Key{Ports: 1}] = &pathEntry{}
		var wires [len(path)]*Stepper
		for i := range wires {
			policy := acceptAll()
			policy.Stateful, policy.AnyVLANs = c.stateful, c.anyVLANs && i == 1
			wires[i] = newStepperOf(Config{Policy: policy, FastPath: path[i]})
			wires[i].advance(began)
		}
		var b bytes.Buffer
		if err := errors.Join(wires[0].Save(&b, c.parts), wires[1].Restore(&b)); err != nil {
			t.Fatal(err)
		}
		if n := len(path[1].expected); n != c.want {
			t.Errorf("%+v: %d expected", c, n)
		}
	}
}

// meanwhile is a writer that calls do once, when it has length bytes.
type meanwhile struct {
	bytes.Buffer
	length int
	do     func()
}

func (m *meanwhile) Write(b []byte) (int, error) {
	if do := m.do; do != nil && m.Len() >= m.length {
		m.do = nil
		do()
	}
	return m.Buffer.Write(b)
}

// TestSaveCatchesUp opens flows while all flows are saved. The same stream contains them, so that
// none is left to save while the wire is held.
func TestSaveCatchesUp(t *testing.T) {
	const flows = 1000
	s := newStepper(&traffic{Rand: rand.New(rand.NewPCG(1, 23)), mode: packet.ModeReassemble, stateful: true})
	defer s.Close()
	open := func(first uint16) {
		for i := range uint16(flows) {
			src := netip.AddrPortFrom(client4.Addr(), first+i)
			s.Forward(verdict.Inside, tun.Frame{Data: packettest.UDP(src, server4, nil).Frame()}, began)
		}
	}
	open(10000)
	all := meanwhile{length: flows * flow.SavedSize / 2, do: func() { open(20000) }}
	var changed, unchanged bytes.Buffer
	for _, save := range []error{s.Save(&all, AllFlows), s.Save(&changed, ChangedFlows), s.Save(&unchanged, ChangedFlows)} {
		if save != nil {
			t.Fatal(save)
		}
	}
	if changed.Len() != unchanged.Len() {
		t.Errorf("%d bytes are left to save, want %d", changed.Len(), unchanged.Len())
	}
	after := newStepper(&traffic{Rand: rand.New(rand.NewPCG(1, 23)), mode: packet.ModeReassemble, stateful: true})
	defer after.Close()
	after.advance(began)
	if err := after.Restore(&all.Buffer); err != nil || after.Policy().Flows() != 2*flows {
		t.Errorf("%d flows restored, want %d: %v", after.Policy().Flows(), 2*flows, err)
	}
}
