package stack

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// cutAnywhere draws a datagram's fragments, in the order of their offsets. The first one has
// the UDP header.
func cutAnywhere(t *rapid.T, d packettest.Datagram) [][]byte {
	whole := d.Fragmentable()
	blocks := (len(whole) - 1) / 8
	cuts := rapid.SliceOfNDistinct(rapid.IntRange(1, blocks), 1, min(blocks, 60), rapid.ID[int]).Draw(t, "cuts")
	slices.Sort(cuts)
	var frames [][]byte
	from := 0
	for _, c := range append(cuts, 0) {
		to := c * 8
		if c == 0 {
			to = len(whole)
		}
		frames = append(frames, d.Fragment(from, whole[from:to], to < len(whole)))
		from = to
	}
	return frames
}

// arrivals draws an order in which fragments arrive. Some arrive again while their datagram is
// incomplete.
func arrivals(t *rapid.T, frames [][]byte) [][]byte {
	order := rapid.Permutation(frames).Draw(t, "order")
	for range rapid.IntRange(0, 5).Draw(t, "duplicates") {
		i := rapid.IntRange(0, len(order)-2).Draw(t, "duplicate of")
		at := rapid.IntRange(i+1, len(order)-1).Draw(t, "at")
		order = slices.Insert(slices.Clone(order), at, order[i])
	}
	return order
}

// payload returns all bytes that the engine reassembled.
func (d *Datagram) payload() []byte { return d.whole.Beginning(d.whole.Size()) }

// TestAnyFragmentationIsReassembled cuts a datagram anywhere, and sends the fragments in any order with
// identical duplicates. The result is the fragments that arrived, and the datagram's bytes.
func TestAnyFragmentationIsReassembled(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b, v := newBench(t), newValidatorBench(t)
		rapid.Check(t, func(t *rapid.T) {
			size := rapid.OneOf(rapid.IntRange(17, 3000), rapid.IntRange(65000, 65515)).Draw(t, "size")
			d := datagram(f, rapid.Uint32Range(0, 0xffff).Draw(t, "id"), size)
			frames := cutAnywhere(t, d)
			order := arrivals(t, frames)

			var whole *Datagram
			for i, frame := range order {
				if whole, _ = b.add(frame, verdict.Inside); whole != nil && i < len(order)-1 {
					t.Fatalf("complete after %d of %d", i+1, len(order))
				}
			}
			if whole == nil {
				t.Fatal("not complete")
			}
			if !bytes.Equal(whole.payload(), d.Payload) {
				t.Fatal("wrong bytes")
			}
			for i, frame := range frames {
				if whole.Len() != len(frames) || !bytes.Equal(whole.Frame(i), frame) {
					t.Fatalf("%d frames; the one at %d is not as it arrived", whole.Len(), i)
				}
			}
			b.release(whole)

			var on [][]byte
			for _, frame := range order {
				passed, _, _ := v.validate(frame, accept)
				on = append(on, passed...)
			}
			slices.SortFunc(on, bytes.Compare)
			sorted := slices.SortedFunc(slices.Values(frames), bytes.Compare)
			if !slices.EqualFunc(on, sorted, bytes.Equal) {
				t.Fatalf("validated: %d frames forwarded, or other ones than the %d that arrived", len(on), len(frames))
			}
			for _, b := range []*bench{b, v} {
				if u := b.table.Usage(); u != (Usage{}) || b.held != 0 {
					t.Fatalf("the table charges for %+v, %d frames held", u, b.held)
				}
			}
		})
		if n := b.dropped[verdict.FragmentDisagreement]; n != 0 {
			t.Errorf("the table and gVisor disagreed about %d fragments", n)
		}
	})
}

// TestNoInterleavingMixes sends alternating fragments of datagrams that differ in one part of
// their keys. Each datagram gets its own bytes.
func TestNoInterleavingMixes(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b, v := newBench(t), newValidatorBench(t)
		rapid.Check(t, func(t *rapid.T) {
			type sent struct {
				frame []byte
				side  verdict.Side
				of    int
			}
			base := datagram(f, 1, rapid.IntRange(100, 3000).Draw(t, "size"))
			var all []sent
			var payloads [][]byte
			for i := range 5 {
				d := base
				d.Payload = slices.Clone(d.Payload)
				for j := 8; j < len(d.Payload); j++ {
					d.Payload[j] ^= byte(i + 1)
				}
				side := verdict.Inside
				switch i {
				case 1:
					d.ID = 2
				case 2:
					d.Tags = []packet.Tag{{TPID: 0x8100, TCI: 7}}
				case 3:
					side = verdict.Outside
				case 4:
					d.Src = d.Src.Next()
				}
				payloads = append(payloads, d.Payload)
				for _, frame := range arrivals(t, cutAnywhere(t, d)) {
					all = append(all, sent{frame, side, i})
				}
			}
			// Alternately: the next datagram is drawn, the order within a datagram stays.
			whole, passed := 0, make([]int, 5)
			for len(all) > 0 {
				next := rapid.IntRange(0, len(all)-1).Draw(t, "next")
				i := slices.IndexFunc(all, func(s sent) bool { return s.of == all[next].of })
				s := all[i]
				all = slices.Delete(all, i, i+1)
				if d, _ := b.add(s.frame, s.side); d != nil {
					whole++
					if !bytes.Equal(d.payload(), payloads[s.of]) || d.Side() != s.side {
						t.Fatalf("datagram %d has wrong bytes", s.of)
					}
					b.release(d)
				}
				var p packet.Parsed
				p.Decode(s.frame)
				waits, waited, why := v.claim(s.frame, &p, s.side, accept)
				if why == verdict.Passed && !waits {
					passed[s.of] += p.End - p.Fragment.Payload
				}
				if d := waited; d != nil {
					for i := range d.Len() {
						p.Decode(d.Frame(i))
						passed[s.of] += p.End - p.Fragment.Payload
					}
					v.release(d)
				}
			}
			if whole != 5 {
				t.Fatalf("%d datagrams complete, want 5", whole)
			}
			for i, n := range passed {
				if n != len(payloads[i]) {
					t.Fatalf("validated: %d bytes of datagram %d forwarded, want %d", n, i, len(payloads[i]))
				}
			}
		})
	})
}

// TestEnginesAgreeWithOracle plays scripts of fragments that no honest host sends.
func TestEnginesAgreeWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		play(t, rapid.SliceOfN(rapid.Byte(), 1, 1+200*opSize).Draw(t, "script"))
	})
}

// FuzzReassembler and FuzzValidator play scripts on one engine. The oracle returns the expected
// outcome of each fragment.
func FuzzReassembler(f *testing.F) {
	seedScripts(f)
	f.Fuzz(func(t *testing.T, script []byte) { playOn(t, script, false, nil) })
}

func FuzzValidator(f *testing.F) {
	seedScripts(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		playOn(t, script, true, nil)
		playOn(t, script, true, &forwarder{})
	})
}

// seedScripts adds honest datagrams, overlaps, conflicting ends, duplicates and pauses, in both
// families.
func seedScripts(f *testing.F) {
	for header := range byte(4) {
		for _, ops := range [][]op{
			{{start: 0, blocks: 2, more: true}, {start: 2, blocks: 2}},
			{{start: 4, blocks: 1}, {start: 2, blocks: 2, more: true}, {start: 0, blocks: 2, more: true}},
			{{id: 1, start: 0, blocks: 4, more: true}, {id: 1, start: 2, blocks: 4, more: true}, {id: 1, start: 4, blocks: 1}},
			{{start: 1, blocks: 2, more: true}, {start: 1, blocks: 2, more: true}, {start: 1, blocks: 2, more: true, mark: true}, {start: 0, blocks: 1, more: true}},
			{{start: 3, blocks: 2}, {start: 5, blocks: 2}, {start: 2, blocks: 1}},
			{{start: 3, blocks: 2, odd: 3}, {start: 3, blocks: 2, odd: 2}, {wait: 31, start: 0, blocks: 3, more: true}, {wait: 31, start: 3, blocks: 1}},
			{{start: 0, blocks: 2, more: true}, {outside: true, start: 2, blocks: 2}, {id: 2, start: 2, blocks: 2}, {start: 2, blocks: 2}},
			{{start: 255, blocks: 16, more: true}, {start: 0, blocks: 16, more: true}},
		} {
			script := []byte{header}
			for _, o := range ops {
				script = append(script, o.encode()...)
			}
			f.Add(script)
		}
	}
}

// play plays a script on both engines, and on a validator behind a fast path.
func play(t fataler, script []byte) {
	playOn(t, script, false, nil)
	playOn(t, script, true, nil)
	playOn(t, script, true, &forwarder{})
}

type fataler interface {
	Fatalf(format string, args ...any)
	Helper()
}

// playOn plays a script. Its first byte selects the family, and whether offsets are close to
// one another or spread over the whole datagram. The rest is operations. The forwarder may be
// nil.
func playOn(t fataler, script []byte, validator bool, front *forwarder) {
	t.Helper()
	if len(script) == 0 {
		return
	}
	f, far := family(script[0]&1), script[0]&2 != 0
	b := newQuietBench(validator, front.install)
	defer b.table.Close()
	oracle := newOracle(f, validator)
	for at := 1; at+opSize <= len(script); at += opSize {
		o := decodeOp(script[at:])
		b.now = b.now.Add(o.pause())
		frame, side := o.frame(f, far)
		var p packet.Parsed
		if p.Decode(frame) != verdict.Passed || !p.Fragment.Present {
			continue
		}
		want := oracle.add(&p, frame, side, b.now)
		b.table.Expire(b.now) // a forwarded fragment does not make the table expire datagrams
		got := step{out: "1"}
		if front == nil || !front.forward(&p, side, b.now) {
			got = b.step(frame, &p, side)
		}
		if got != want {
			t.Fatalf("operation %d, %+v:\ngot  %v\nwant %v", at/opSize, o, got, want)
		}
		if b.held != oracle.held() {
			t.Fatalf("operation %d, %+v: %d frames held, want %d", at/opSize, o, b.held, oracle.held())
		}
	}
	b.table.Expire(b.now.Add(maxPause))
	if u := b.table.Usage(); u != (Usage{}) || b.held != 0 || b.dropped[verdict.FragmentDisagreement] != 0 {
		t.Fatalf("at the end: %+v, %d frames held, dropped: %v", u, b.held, b.dropped)
	}
}

// step adds a frame and returns the outcome.
func (b *bench) step(frame []byte, p *packet.Parsed, side verdict.Side) step {
	if b.validator.Table == nil {
		d, why := b.reassembler.Add(frame, p, side, b.now)
		s := step{why: why}
		if d != nil {
			s.out = fmt.Sprint(d.Len(), " ", sum(d.payload()))
			b.release(d)
		}
		return s
	}
	waits, waited, why := b.claim(frame, p, side, verdictByID)
	s := step{why: why}
	if why == verdict.Passed && !waits {
		n := 1
		if d := waited; d != nil {
			n += d.Len()
			b.release(d)
		}
		s.out = fmt.Sprint(n)
	}
	return s
}

// verdictByID denies datagrams with an odd identification.
func verdictByID(first *packet.Parsed) verdict.Reason {
	if first.Fragment.ID%2 == 1 {
		return verdict.PolicyRule
	}
	return verdict.Passed
}
