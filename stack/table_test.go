package stack

import (
	"net/netip"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

func withPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func TestAnyOrderCompletes(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t)
		id := uint32(0)
		packettest.Permutations(5, func(order []int) {
			id++
			d := datagram(f, id, 4008+int(id))
			frames := d.Fragments(1000)
			for _, i := range order[:4] {
				b.mustWait(frames[i])
			}
			whole, _ := b.add(frames[order[4]], verdict.Inside)
			if whole == nil {
				t.Fatalf("order %v: not complete", order)
			}
			if got := string(whole.Payload()); got != string(d.Payload[:1000]) {
				t.Fatalf("order %v: wrong payload", order)
			}
			for i, frame := range frames {
				if string(whole.Frame(i)) != string(frame) {
					t.Fatalf("order %v: frame %d is not as it arrived", order, i)
				}
			}
			b.release(whole)
		})
		if u := b.table.Usage(); u != (Usage{}) {
			t.Errorf("after all datagrams, the table charges for %+v", u)
		}
	})
}

// TestPayloadSpansFragments has a transport header in three fragments of 8 bytes. The
// payload to judge by is the reassembled one.
func TestPayloadSpansFragments(t *testing.T) {
	b := newBench(t)
	d := packettest.TCP(withPort(packettest.InsideIPv4, 1000), withPort(packettest.OutsideIPv4, 80), 2)
	frames := d.Fragments(8)
	b.mustWait(frames[2])
	b.mustWait(frames[1])
	whole, why := b.add(frames[0], verdict.Inside)
	if whole == nil {
		t.Fatal(why)
	}
	defer b.release(whole)
	if string(whole.Payload()) != string(d.Payload) {
		t.Errorf("% x, want % x", whole.Payload(), d.Payload)
	}
}

// TestLargestDatagrams has datagrams that are exactly 65,535 bytes long with their headers, and
// one that is too long only because of the first fragment's options.
func TestLargestDatagrams(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t)
		size := 65535 - 20
		if f == familyIPv6 {
			size = 65535
		}
		frames := datagram(f, 1, size).Fragments(1480)
		for _, frame := range frames[1:] {
			b.mustWait(frame)
		}
		b.mustComplete(frames[0], frames)

		long := datagram(f, 2, size)
		first := long
		first.Options = make([]byte, 4)
		first.FirstBefore, first.Before = 60, []byte{44, 0, 1, 4, 0, 0, 0, 0}
		for _, frame := range long.Fragments(1480)[1:] {
			b.mustWait(frame)
		}
		if d, why := b.add(first.Fragment(0, long.Payload[:1480], true), verdict.Inside); d != nil || why != verdict.FragmentTooLong {
			t.Errorf("65,539 bytes with the first fragment's headers: %v, %v", d != nil, why)
		}
	})
}

// TestDuplicateWithLongerHeaders sends a datagram of the maximum length, and its first fragment
// a second time with more options or extension headers than the datagram has room for. It is a
// duplicate like any other.
func TestDuplicateWithLongerHeaders(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		size := 65535 - 20
		if f == familyIPv6 {
			size = 65535
		}
		frames := datagram(f, 1, size).Fragments(1480)
		longer := datagram(f, 1, size)
		longer.Options = make([]byte, 4)
		longer.FirstBefore, longer.Before = 60, []byte{44, 0, 1, 4, 0, 0, 0, 0}
		duplicate := longer.Fragments(1480)[0]

		b := newBench(t)
		for _, frame := range frames[:len(frames)-1] {
			b.mustWait(frame)
		}
		if d, why := b.add(duplicate, verdict.Inside); d != nil || why != verdict.FragmentDuplicate {
			t.Errorf("the first fragment again: %v, %v", d != nil, why)
		}
		b.mustComplete(frames[len(frames)-1], frames)

		v := newValidatorBench(t)
		for i, frame := range frames {
			if i == len(frames)-1 {
				if _, _, why := v.validate(duplicate, accept); why != verdict.FragmentDuplicate {
					t.Errorf("validate, the first fragment again: %v", why)
				}
			}
			if _, _, why := v.validate(frame, accept); why != verdict.Passed {
				t.Fatalf("validate: %v", why)
			}
		}
	})
}

// TestContradictions sends fragments of one datagram, [from, to) of 4,000 bytes, and expects a
// reason for each. After a fragment that poisons the key, the fragments that would have
// completed the datagram must not complete it.
func TestContradictions(t *testing.T) {
	type step struct {
		from, to int
		last     bool // without the M flag
		other    bool // with other bytes than the datagram's
		want     verdict.Reason
	}
	const ok = verdict.Passed
	tests := []struct {
		name     string
		steps    []step
		poisoned bool
	}{
		{"identical duplicate", []step{{from: 0, to: 800, want: ok}, {from: 0, to: 800, want: verdict.FragmentDuplicate}}, false},
		{"identical last", []step{{from: 3200, to: 4000, last: true}, {from: 3200, to: 4000, last: true, want: verdict.FragmentDuplicate}}, false},
		{"same range, different bytes", []step{{from: 800, to: 1600}, {from: 800, to: 1600, other: true, want: verdict.FragmentConflict}}, true},
		{"same range, last or not", []step{{from: 800, to: 1600}, {from: 800, to: 1600, last: true, want: verdict.FragmentConflictingEnd}}, true},
		{"covers the end of another", []step{{from: 0, to: 800}, {from: 792, to: 1600, want: verdict.FragmentOverlap}}, true},
		{"covers the beginning of another", []step{{from: 800, to: 1600}, {from: 0, to: 808, want: verdict.FragmentOverlap}}, true},
		{"within another", []step{{from: 0, to: 800}, {from: 80, to: 160, want: verdict.FragmentOverlap}}, true},
		{"within another, same beginning", []step{{from: 0, to: 800}, {from: 0, to: 160, want: verdict.FragmentOverlap}}, true},
		{"around another", []step{{from: 800, to: 1600}, {from: 0, to: 2400, want: verdict.FragmentOverlap}}, true},
		{"around another, same beginning", []step{{from: 800, to: 1600}, {from: 800, to: 2400, want: verdict.FragmentOverlap}}, true},
		{"over two others", []step{{from: 0, to: 800}, {from: 1600, to: 2400}, {from: 400, to: 2000, want: verdict.FragmentOverlap}}, true},
		{"two ends, the second later", []step{{from: 1600, to: 2400, last: true}, {from: 3200, to: 4000, last: true, want: verdict.FragmentConflictingEnd}}, true},
		{"two ends, the second earlier", []step{{from: 3200, to: 4000, last: true}, {from: 1600, to: 2400, last: true, want: verdict.FragmentConflictingEnd}}, true},
		{"beyond the end", []step{{from: 1600, to: 2400, last: true}, {from: 2400, to: 3200, want: verdict.FragmentBeyondEnd}}, true},
		{"an end before a fragment that is held", []step{{from: 2400, to: 3200}, {from: 1600, to: 2400, last: true, want: verdict.FragmentBeyondEnd}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, f family) {
				b := newBench(t)
				d := datagram(f, 9, 4000)
				waiting := 0
				for i, s := range tt.steps {
					payload := append([]byte{}, d.Payload[s.from:s.to]...)
					if s.other {
						payload[7] ^= 1
					}
					if whole, why := b.add(d.Fragment(s.from, payload, !s.last), verdict.Inside); whole != nil || why != s.want {
						t.Fatalf("step %d: complete: %v, %v; want %v", i, whole != nil, why, s.want)
					}
					if s.want == ok {
						waiting++
					}
				}
				if !tt.poisoned {
					if b.held != waiting {
						t.Errorf("%d fragments held, want %d", b.held, waiting)
					}
					return
				}
				last := tt.steps[len(tt.steps)-1].want
				if b.held != 0 || b.dropped[last] != waiting {
					t.Errorf("%d held, dropped: %v; want all %d dropped for %v", b.held, b.dropped, waiting, last)
				}
				for _, frame := range d.Fragments(800) {
					if whole, why := b.add(frame, verdict.Inside); whole != nil || why != verdict.FragmentPoisoned {
						t.Fatalf("afterwards: complete: %v, %v", whole != nil, why)
					}
				}
				b.now = b.now.Add(time.Minute)
				frames := d.Fragments(2000)
				b.mustWait(frames[0])
				b.mustComplete(frames[1], frames)
			})
		})
	}
}

// TestNothingMixes sends the two halves of a datagram as fragments of datagrams that differ in
// one part of the key.
func TestNothingMixes(t *testing.T) {
	base := func(f family) packettest.Datagram { return datagram(f, 5, 1600) }
	tests := []struct {
		name   string
		change func(d *packettest.Datagram)
		side   verdict.Side
		only   func(f family) bool
	}{
		{name: "side", side: verdict.Outside},
		{name: "identification", change: func(d *packettest.Datagram) { d.ID++ }},
		{name: "source", change: func(d *packettest.Datagram) { d.Src = d.Src.Next() }},
		{name: "destination", change: func(d *packettest.Datagram) { d.Dst = d.Dst.Next() }},
		{name: "tag", change: func(d *packettest.Datagram) { d.Tags = []packet.Tag{{TPID: 0x8100, TCI: 1}} }},
		{name: "protocol", change: func(d *packettest.Datagram) { d.Protocol = packet.ProtocolTCP },
			only: func(f family) bool { return f == familyIPv4 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, f family) {
				if tt.only != nil && !tt.only(f) {
					return
				}
				b := newBench(t)
				d := base(f)
				b.mustWait(d.Fragments(800)[0])
				if tt.change != nil {
					tt.change(&d)
				}
				if whole, why := b.add(d.Fragments(800)[1], tt.side); whole != nil || why != verdict.Passed {
					t.Errorf("complete: %v, %v", whole != nil, why)
				}
			})
		})
	}
	t.Run("tags differ", func(t *testing.T) {
		b := newBench(t)
		tags := [][]packet.Tag{
			{{TPID: 0x8100, TCI: 1}}, {{TPID: 0x8100, TCI: 2}}, {{TPID: 0x88a8, TCI: 1}},
			{{TPID: 0x8100, TCI: 1}, {TPID: 0x8100, TCI: 1}}, {{TPID: 0x8100, TCI: 1}, {TPID: 0x8100, TCI: 2}},
			{{TPID: 0x8100, TCI: 0}},
		}
		for i, tag := range tags {
			d := base(familyIPv4)
			d.Tags = tag
			frame := d.Fragment(i*8, d.Payload[i*8:i*8+8], i < len(tags)-1)
			b.mustWait(frame)
		}
	})
	t.Run("priorities do not", func(t *testing.T) {
		const q, ad = 0x8100, 0x88a8
		for _, tags := range [][2][]packet.Tag{
			{{{TPID: q, TCI: 1}}, {{TPID: q, TCI: 0xe001}}},
			{nil, {{TPID: q, TCI: 0xe000}}},
			{{{TPID: ad, TCI: 0}}, {{TPID: q, TCI: 0}, {TPID: q, TCI: 0x2000}}},
			{{{TPID: q, TCI: 10}}, {{TPID: q, TCI: 0}, {TPID: q, TCI: 10}}},
			{{{TPID: ad, TCI: 10}, {TPID: q, TCI: 0}}, {{TPID: q, TCI: 0}, {TPID: ad, TCI: 10}}},
		} {
			b := newBench(t)
			d := base(familyIPv4)
			d.Tags = tags[0]
			first := d.Fragments(800)[0]
			d.Tags = tags[1]
			second := d.Fragments(800)[1]
			b.mustWait(first)
			b.mustComplete(second, [][]byte{first, second})
		}
	})
}

// TestDeadlines lets time pass between the fragments of a datagram. Later fragments do not
// extend the deadline.
func TestDeadlines(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		timeout := 30 * time.Second
		if f == familyIPv6 {
			timeout = 60 * time.Second
		}
		b := newBench(t)
		frames := datagram(f, 1, 2400).Fragments(800)

		b.mustWait(frames[0])
		b.now = epoch.Add(timeout - time.Nanosecond)
		b.mustWait(frames[1])
		b.mustComplete(frames[2], frames)

		start := b.now
		b.mustWait(frames[0])
		b.now = start.Add(timeout / 2)
		b.mustWait(frames[1])
		b.now = start.Add(timeout)
		b.mustWait(frames[2]) // begins a new datagram
		if b.held != 1 || b.dropped[verdict.FragmentTimeout] != 2 {
			t.Errorf("%d held, dropped: %v", b.held, b.dropped)
		}

		b.now = b.now.Add(timeout)
		b.table.Expire(b.now) // called by a timer, without traffic
		if b.held != 0 || b.dropped[verdict.FragmentTimeout] != 3 || b.table.Usage() != (Usage{}) {
			t.Errorf("%d held, dropped: %v, %+v", b.held, b.dropped, b.table.Usage())
		}
	})
}

func TestTooManyFragments(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t, func(o *Options) { o.MaxFragments = 4 })
		frames := datagram(f, 1, 2400).Fragments(400)
		for _, frame := range frames[:4] {
			b.mustWait(frame)
		}
		if _, why := b.add(frames[4], verdict.Inside); why != verdict.FragmentTooMany {
			t.Errorf("the fifth: %v", why)
		}
		if _, why := b.add(frames[5], verdict.Inside); why != verdict.FragmentPoisoned {
			t.Errorf("the last: %v", why)
		}
		frames = datagram(f, 2, 1600).Fragments(400)
		for _, frame := range frames[:3] {
			b.mustWait(frame)
		}
		b.mustComplete(frames[3], frames)
	})
}

// TestSmallestFragments cuts the largest datagram into the maximum number of fragments, and
// sends them backwards.
func TestSmallestFragments(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t)
		d := datagram(f, 1, 65512)
		size := 8
		if f == familyIPv6 {
			size = 16 // the first holds the UDP header and 8 bytes
		}
		frames := d.Fragments(size)
		for i := len(frames) - 1; i > 0; i-- {
			b.mustWait(frames[i])
		}
		b.mustComplete(frames[0], frames)
	})
}
