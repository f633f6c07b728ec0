package stack

import (
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// accept and deny are verdicts on first fragments.
func accept(*packet.Parsed) verdict.Reason { return verdict.Passed }
func deny(*packet.Parsed) verdict.Reason   { return verdict.PolicyRule }

// judge is a policy for first fragments.
type judge func(first *packet.Parsed) verdict.Reason

// claim passes a fragment to the validator, and the verdict if the fragment is the first. It
// returns whether the fragment is held, the fragments that were held for it, and why it was
// dropped.
func (b *bench) claim(frame []byte, p *packet.Parsed, side verdict.Side, judge judge) (waits bool, waited *Datagram, why verdict.Reason) {
	c, why := b.validator.Claim(frame, p, side, b.now)
	if c.First() {
		why = judge(p)
		waited = b.validator.Settle(c, why)
	}
	return c.Waits, waited, why
}

// validate adds a frame, which must decode. It returns the forwarded frames in order, and
// whether the frame is held or why it was dropped.
func (b *bench) validate(frame []byte, judge judge) (on [][]byte, waits bool, why verdict.Reason) {
	b.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed || !p.Fragment.Present {
		b.Fatalf("not a valid fragment: %v", why)
	}
	waits, waited, why := b.claim(frame, &p, verdict.Inside, judge)
	if why == verdict.Passed && !waits {
		on = append(on, frame)
	}
	if d := waited; d != nil {
		for i := range d.Len() {
			on = append(on, append([]byte{}, d.Frame(i)...))
		}
		b.release(d)
	}
	return on, waits, why
}

// TestVerdictCoversTheRest sends a datagram in every order.
func TestVerdictCoversTheRest(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newValidatorBench(t)
		id := uint32(0)
		packettest.Permutations(5, func(order []int) {
			id++
			frames := datagram(f, id, 4100).Fragments(1000)
			var got [][]byte
			firstCame := false
			for _, i := range order {
				on, waits, why := b.validate(frames[i], accept)
				firstCame = firstCame || i == 0
				if why != verdict.Passed || waits == firstCame {
					t.Fatalf("order %v: fragment %d held: %v, %v", order, i, waits, why)
				}
				got = append(got, on...)
			}
			if len(got) != len(frames) || string(got[0]) != string(frames[0]) {
				t.Fatalf("order %v: %d frames forwarded, or not the first before the others", order, len(got))
			}
		})
		packettest.Permutations(5, func(order []int) {
			id++
			frames := datagram(f, id, 4100).Fragments(1000)
			for _, i := range order {
				if on, waits, why := b.validate(frames[i], deny); on != nil || !waits && why != verdict.PolicyRule {
					t.Fatalf("order %v, denied: fragment %d: %d forwarded, held: %v, %v", order, i, len(on), waits, why)
				}
			}
		})
		if u := b.table.Usage(); u != (Usage{}) || b.held != 0 {
			t.Errorf("after all verdicts, the table charges for %+v, with %d frames", u, b.held)
		}
	})
}

// TestReleasedInOrder sends fragments backwards, so that they are held.
func TestReleasedInOrder(t *testing.T) {
	b := newValidatorBench(t)
	frames := datagram(familyIPv6, 1, 4000).Fragments(800)
	for i := len(frames) - 1; i > 0; i-- {
		b.validate(frames[i], accept)
	}
	on, _, _ := b.validate(frames[0], accept)
	for i := range frames {
		if len(on) != len(frames) || string(on[i]) != string(frames[i]) {
			t.Fatalf("%d frames forwarded, the one at %d is not as it arrived", len(on), i)
		}
	}
}

// TestClaims sends fragments of one datagram, [from, to) of 4,000 bytes, to a validator that
// accepts the first.
func TestClaims(t *testing.T) {
	type step struct {
		from, to int
		last     bool
		want     verdict.Reason
	}
	tests := []struct {
		name     string
		steps    []step
		poisoned bool
	}{
		{"duplicate", []step{{from: 0, to: 800}, {from: 0, to: 800, want: verdict.FragmentDuplicate}}, false},
		{"duplicate of one that is held", []step{{from: 800, to: 1600}, {from: 800, to: 1600, want: verdict.FragmentDuplicate}}, false},
		{"duplicate of the last", []step{{from: 3200, to: 4000, last: true}, {from: 3200, to: 4000, last: true, want: verdict.FragmentDuplicate}}, false},
		{"overlaps one that was forwarded", []step{{from: 0, to: 800}, {from: 792, to: 1600, want: verdict.FragmentOverlap}}, true},
		{"overlaps one that is held", []step{{from: 1600, to: 2400}, {from: 800, to: 1608, want: verdict.FragmentOverlap}}, true},
		{"within another", []step{{from: 0, to: 800}, {from: 80, to: 160, want: verdict.FragmentOverlap}}, true},
		{"same beginning, shorter", []step{{from: 0, to: 800}, {from: 0, to: 80, want: verdict.FragmentOverlap}}, true},
		{"around two others", []step{{from: 0, to: 800}, {from: 1600, to: 2400}, {from: 800, to: 3200, want: verdict.FragmentOverlap}}, true},
		{"two ends", []step{{from: 800, to: 1600, last: true}, {from: 3200, to: 4000, last: true, want: verdict.FragmentConflictingEnd}}, true},
		{"same range, last or not", []step{{from: 800, to: 1600}, {from: 800, to: 1600, last: true, want: verdict.FragmentConflictingEnd}}, true},
		{"same range, last and then not", []step{{from: 800, to: 1600, last: true}, {from: 800, to: 1600, want: verdict.FragmentConflictingEnd}}, true},
		{"beyond the end", []step{{from: 800, to: 1600, last: true}, {from: 1600, to: 2400, want: verdict.FragmentBeyondEnd}}, true},
		{"an end before a fragment that is held", []step{{from: 2400, to: 3200}, {from: 800, to: 1600, last: true, want: verdict.FragmentBeyondEnd}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, f family) {
				b := newValidatorBench(t)
				d := datagram(f, 9, 4000)
				for i, s := range tt.steps {
					if _, _, why := b.validate(d.Fragment(s.from, d.Payload[s.from:s.to], !s.last), accept); why != s.want {
						t.Fatalf("step %d: %v, want %v", i, why, s.want)
					}
				}
				if !tt.poisoned {
					return
				}
				if b.held != 0 {
					t.Errorf("%d frames held", b.held)
				}
				for _, frame := range d.Fragments(800) {
					if on, _, why := b.validate(frame, accept); on != nil || why != verdict.FragmentPoisoned {
						t.Fatalf("afterwards: %d forwarded, %v", len(on), why)
					}
				}
				b.now = b.now.Add(time.Minute)
				if on, _, why := b.validate(d.Fragments(800)[0], accept); len(on) != 1 {
					t.Errorf("after the deadline: %v", why)
				}
			})
		})
	}
}

// TestTinyFirst sends first fragments that lack a part of their transport header (RFC 1858),
// and the fragment that would have completed it.
func TestTinyFirst(t *testing.T) {
	b := newValidatorBench(t)
	d := packettest.TCP(withPort(packettest.InsideIPv4, 1000), withPort(packettest.OutsideIPv4, 80), 2)
	d.Payload = append(d.Payload, packettest.Body(100)...)
	b.validate(d.Fragment(24, d.Payload[24:], false), accept)
	for _, step := range []struct {
		from, to int
		want     verdict.Reason
	}{{0, 16, verdict.FragmentTinyFirst}, {16, 24, verdict.FragmentPoisoned}, {0, 24, verdict.FragmentPoisoned}} {
		on, _, why := b.validate(d.Fragment(step.from, d.Payload[step.from:step.to], true), accept)
		if on != nil || why != step.want {
			t.Errorf("%+v: %d forwarded, %v", step, len(on), why)
		}
	}
	if b.dropped[verdict.FragmentTinyFirst] != 1 {
		t.Errorf("held fragments: %v", b.dropped)
	}
}

// TestIdentificationIsReusable sends two datagrams with one identification, the second after
// all of the first has been forwarded.
func TestIdentificationIsReusable(t *testing.T) {
	b := newValidatorBench(t)
	frames := datagram(familyIPv4, 1, 2400).Fragments(800)
	for _, judge := range []judge{accept, deny, accept} {
		for _, frame := range frames {
			want := judge(nil)
			if _, _, why := b.validate(frame, judge); why != want {
				t.Fatalf("%v, want %v", why, want)
			}
		}
	}
	if _, waits, _ := b.validate(frames[1], accept); !waits {
		t.Error("a fragment of a new datagram was forwarded by the verdict of the previous one")
	}
}

// TestUnjudgedFragmentsExpire reaches the deadline of fragments whose first never arrived.
func TestUnjudgedFragmentsExpire(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newValidatorBench(t)
		frames := datagram(f, 1, 2400).Fragments(800)
		b.validate(frames[1], accept)
		b.validate(frames[2], accept)
		b.now = b.now.Add(time.Minute)
		if on, _, _ := b.validate(frames[0], accept); len(on) != 1 {
			t.Errorf("%d frames forwarded with the first, want only the first", len(on))
		}
		if b.held != 0 || b.dropped[verdict.FragmentTimeout] != 2 {
			t.Errorf("%d held, dropped: %v", b.held, b.dropped)
		}
	})
}

// TestValidatorCountsFragments sends one fragment more than a datagram may have.
func TestValidatorCountsFragments(t *testing.T) {
	b := newValidatorBench(t, func(o *Options) { o.MaxFragments = 4 })
	for i, frame := range datagram(familyIPv4, 1, 2400).Fragments(400) {
		want := verdict.Passed
		switch i {
		case 4:
			want = verdict.FragmentTooMany
		case 5:
			want = verdict.FragmentPoisoned
		}
		if _, _, why := b.validate(frame, accept); why != want {
			t.Errorf("fragment %d: %v, want %v", i, why, want)
		}
	}
}

// TestManyClaims cuts the largest datagram into the maximum number of fragments, and sends each
// twice. Beyond maxClaims, claims are kept as bits.
func TestManyClaims(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newValidatorBench(t)
		frames := datagram(f, 1, 65511).Fragments(8)
		for i, frame := range frames {
			if on, _, why := b.validate(frame, accept); len(on) != 1 {
				t.Fatalf("fragment %d: %v", i, why)
			}
			if i == len(frames)-1 {
				break
			}
			if on, _, why := b.validate(frame, accept); on != nil || why != verdict.FragmentDuplicate {
				t.Fatalf("fragment %d again: %d forwarded, %v", i, len(on), why)
			}
		}
		if u := b.table.Usage(); u != (Usage{}) {
			t.Errorf("%+v", u)
		}
	})
}

// TestHeldFramesAreEvicted floods a validator with fragments whose first never arrives.
// Meanwhile an honest datagram waits for its first fragment.
func TestHeldFramesAreEvicted(t *testing.T) {
	const memory = 1 << 20
	b := newValidatorBench(t, func(o *Options) { o.Memory = memory })
	honest := datagram(familyIPv4, 1, 1600).Fragments(800)
	b.validate(honest[1], accept)
	flood := packettest.Datagram{Src: addr4(11, 0, 0, 1), Dst: packettest.OutsideIPv4, Protocol: packet.ProtocolUDP}
	for i := range 5000 {
		flood.ID = uint32(i)
		if _, waits, why := b.validate(flood.Fragment(1480, packettest.Body(1480), true), accept); !waits {
			t.Fatalf("a new datagram was refused: %v", why)
		}
	}
	if u := b.table.Usage(); u.Bytes > memory || b.dropped[verdict.FragmentEvicted] == 0 {
		t.Errorf("%+v, dropped: %v", u, b.dropped)
	}
	if on, _, why := b.validate(honest[0], accept); len(on) != 2 {
		t.Errorf("%d of the honest datagram's frames forwarded: %v", len(on), why)
	}
}

// TestSettleLater changes the datagram between the claim of its first fragment and the verdict.
// The verdict applies to the first fragment, and to the rest of the datagram that the table
// still knows.
func TestSettleLater(t *testing.T) {
	frames := datagram(familyIPv4, 1, 2400).Fragments(800)
	overlap := datagram(familyIPv4, 1, 2400)
	for _, tt := range []struct {
		name    string
		between func(b *bench)
		waited  int            // fragments that are forwarded after the first
		after   verdict.Reason // of the last fragment, if it arrives then
		waits   bool           // whether that is held
	}{
		{"nothing", func(*bench) {}, 1, verdict.Passed, false},
		{"another is held", func(b *bench) { b.validate(frames[2], accept) }, 2, verdict.Passed, true},
		{"the first again", func(b *bench) { b.validate(frames[0], accept) }, 1, verdict.Passed, false},
		{"an overlap", func(b *bench) {
			b.validate(overlap.Fragment(792, overlap.Payload[792:808], true), accept)
		}, 0, verdict.FragmentPoisoned, false},
		{"an overlap that times out", func(b *bench) {
			b.validate(overlap.Fragment(792, overlap.Payload[792:808], true), accept)
			b.now = b.now.Add(time.Hour)
			b.table.Expire(b.now)
		}, 0, verdict.Passed, true},
		{"the deadline", func(b *bench) {
			b.now = b.now.Add(time.Hour)
			b.table.Expire(b.now)
		}, 0, verdict.Passed, true},
		{"the deadline, and the datagram again", func(b *bench) {
			b.now = b.now.Add(time.Hour)
			for _, frame := range frames[:2] {
				b.validate(frame, accept)
			}
		}, 0, verdict.Passed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newValidatorBench(t)
			b.validate(frames[1], accept)
			var p packet.Parsed
			p.Decode(frames[0])
			c, why := b.validator.Claim(frames[0], &p, verdict.Inside, b.now)
			if !c.First() || why != verdict.Passed {
				t.Fatalf("%+v, %v", c, why)
			}
			tt.between(b)
			n := 0
			if waited := b.validator.Settle(c, verdict.Passed); waited != nil {
				n = waited.Len()
				b.release(waited)
			}
			if n != tt.waited {
				t.Errorf("%d forwarded after the first, want %d", n, tt.waited)
			}
			if _, waits, why := b.validate(frames[2], accept); waits != tt.waits || why != tt.after {
				t.Errorf("the last fragment held: %v, %v; want %v, %v", waits, why, tt.waits, tt.after)
			}
		})
	}
}
