package stack

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/refs"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestMain fails if a test leaks a reference to one of gVisor's buffers. Benchmarks run without
// the check, because it costs more than the code that they measure.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		refs.SetLeakMode(refs.LeaksPanic)
	}
	code := m.Run()
	refs.DoLeakCheck()
	os.Exit(code)
}

// epoch is the start of the tests' clock.
var epoch = time.Unix(1_000_000_000, 0)

// ledger records the reports of the table.
type ledger struct {
	held     int
	credited netip.Addr // the latest
	dropped  map[verdict.Reason]int
}

func (l *ledger) Held(*Datagram) { l.held++ }

func (l *ledger) Credited(d *Datagram) { l.credited = d.Src() }

func (l *ledger) Dropped(d *Datagram, why verdict.Reason) {
	l.held -= d.Len()
	if d.Len() > 0 {
		l.dropped[why] += d.Len()
	}
	d.Release()
}

// bench is a table with its ledger, and the reassembler or validator that adds frames to it.
type bench struct {
	testing.TB
	*ledger
	table       *Table
	reassembler Reassembler
	validator   Validator
	now         time.Time
}

// newBench returns a bench with a reassembler.
func newBench(t testing.TB, change ...func(*Options)) *bench {
	b, o := newEmptyBench(t, change)
	b.reassembler = NewReassembler(o)
	b.table = b.reassembler.Table
	return b
}

// newValidatorBench returns a bench with a validator.
func newValidatorBench(t testing.TB, change ...func(*Options)) *bench {
	b, o := newEmptyBench(t, change)
	b.validator = NewValidator(o)
	b.table = b.validator.Table
	return b
}

func newEmptyBench(t testing.TB, change []func(*Options)) (*bench, Options) {
	l := &ledger{dropped: map[verdict.Reason]int{}}
	o := Options{
		TimeoutIPv4: 30 * time.Second, TimeoutIPv6: 60 * time.Second,
		Memory: 64 << 20, MaxFragments: 8192, MaxDatagrams: 65536, Ledger: l,
	}
	for _, c := range change {
		c(&o)
	}
	b := &bench{TB: t, ledger: l, now: epoch}
	t.Cleanup(func() {
		b.table.Close()
		if u := b.table.Usage(); u != (Usage{}) {
			t.Errorf("after Close, the table charges for %+v", u)
		}
		if b.held != 0 {
			t.Errorf("after Close, the ledger has %d frames held", b.held)
		}
	})
	return b, o
}

// engines are the two ways to process fragments.
var engines = []struct {
	name string
	new  func(t testing.TB, change ...func(*Options)) *bench
}{{"reassembler", newBench}, {"validator", newValidatorBench}}

// put adds a frame and ignores the outcome.
func (b *bench) put(frame []byte) {
	b.Helper()
	if b.validator.Table != nil {
		b.validate(frame, accept)
	} else if d, _ := b.add(frame, verdict.Inside); d != nil {
		b.release(d)
	}
}

// add adds a frame, which must decode.
func (b *bench) add(frame []byte, side verdict.Side) (*Datagram, verdict.Reason) {
	b.Helper()
	var p packet.Parsed
	if why := p.Decode(frame); why != verdict.Passed || !p.Fragment.Present {
		b.Fatalf("not a valid fragment: %v", why)
	}
	return b.reassembler.Add(frame, &p, side, b.now)
}

// mustWait adds a frame, which the table must hold.
func (b *bench) mustWait(frame []byte) {
	b.Helper()
	if d, why := b.add(frame, verdict.Inside); d != nil || why != verdict.Passed {
		b.Fatalf("complete: %v, %v; want the fragment held", d != nil, why)
	}
}

// mustComplete adds a frame, which must complete a datagram of the given frames, and releases
// the datagram.
func (b *bench) mustComplete(frame []byte, want [][]byte) {
	b.Helper()
	d, why := b.add(frame, verdict.Inside)
	if d == nil {
		b.Fatalf("not complete: %v", why)
	}
	defer b.release(d)
	if d.Len() != len(want) {
		b.Fatalf("complete with %d frames, want %d", d.Len(), len(want))
	}
	for i := range want {
		if string(d.Frame(i)) != string(want[i]) {
			b.Fatalf("frame %d of %d is not as it arrived", i, len(want))
		}
	}
}

// release releases a datagram as a caller does.
func (b *bench) release(d *Datagram) {
	b.held -= d.Len()
	d.Release()
}

// datagram returns a UDP datagram of the family with n bytes of payload, including the UDP
// header.
func datagram(f family, id uint32, n int) packettest.Datagram {
	src, dst := packettest.InsideIPv4, packettest.OutsideIPv4
	if f == familyIPv6 {
		src, dst = packettest.InsideIPv6, packettest.OutsideIPv6
	}
	d := packettest.UDP(withPort(src, 1000), withPort(dst, 53), packettest.Body(n-8))
	d.ID = id
	return d
}

// bothFamilies runs a test for IPv4 and for IPv6.
func bothFamilies(t *testing.T, run func(t *testing.T, f family)) {
	t.Run("ipv4", func(t *testing.T) { run(t, familyIPv4) })
	t.Run("ipv6", func(t *testing.T) { run(t, familyIPv6) })
}

func name(f family) string { return fmt.Sprintf("ipv%d", 4+2*f) }
