package meter

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"fragwall/packet/verdict"
)

// TestTally records datagrams with losses, duplicates and reordering.
func TestTally(t *testing.T) {
	var y tally
	millisecond := int64(time.Millisecond)
	for i, number := range []uint64{0, 1, 4, 3, 3, 130, 4} { // 2 and 5 to 129 are lost, and so are 131 and 132
		y.record(number, int64(number)*millisecond, int64(1000+i)*millisecond)
	}
	got := y.finish(133)
	if got.Sent != 133 || got.Lost != 128 || got.Duplicated != 2 || got.Reordered != 1 || got.Corrupted != 0 {
		t.Errorf("got %+v, want 133 sent, 128 lost, 2 duplicated, 1 reordered", got)
	}
}

// TestReordered checks that a datagram counts as reordered only if the network reordered it, and not
// if only the socket returned it late.
func TestReordered(t *testing.T) {
	type arrival struct {
		number   uint64
		received int64
	}
	for name, c := range map[string]struct {
		arrivals []arrival
		want     uint64
	}{
		"in the network":                   {[]arrival{{0, 10}, {2, 11}, {1, 12}}, 1},
		"in the socket":                    {[]arrival{{0, 10}, {2, 12}, {3, 13}, {1, 11}}, 0},
		"in the network, by one of two":    {[]arrival{{0, 10}, {2, 12}, {3, 14}, {1, 13}}, 1},
		"in the network, and sorted again": {[]arrival{{0, 10}, {1, 12}, {2, 11}}, 1},
		"in the socket, first ones last":   {[]arrival{{5, 10}, {4, 9}, {0, 8}}, 0},
		"later than stored arrival times":  {[]arrival{{0, 10}, {2 * recent, 12}, {1, 11}}, 1},
	} {
		var y tally
		for _, a := range c.arrivals {
			y.record(a.number, a.received, a.received)
		}
		if y.Reordered != c.want {
			t.Errorf("%s: %d reordered; want %d", name, y.Reordered, c.want)
		}
	}
}

// TestGaps records a gap of 30 ms that the network caused, and one that the sender caused, which does
// not count.
func TestGaps(t *testing.T) {
	var y tally
	at := func(ms int64) int64 { return ms * int64(time.Millisecond) }
	y.record(0, at(0), at(1))
	y.record(1, at(100), at(101)) // gap of the sender
	y.record(2, at(101), at(132)) // gap of the network
	y.record(3, at(130), at(132))
	d := y.finish(4)
	if want := [...]uint64{2, 0, 0, 0, 0, 1}; d.Gaps.Max != 30*time.Millisecond || !slices.Equal(d.Gaps.Counts[:len(want)], want[:]) {
		t.Errorf("gaps %v", d.Gaps)
	}
	if d.Delays.Max != 31*time.Millisecond {
		t.Errorf("delays %v", d.Delays)
	}
	if got, want := d.Gaps.String(), "<1ms 2, <50ms 1, max 30ms"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

// TestCorrupted changes each byte of a datagram, its length, its flow and its side.
func TestCorrupted(t *testing.T) {
	const flow, number, sent = 7, 1<<40 + 5, 1 << 50
	b := make([]byte, SmallSize)
	seal(b, flow, verdict.Outside, number, sent)
	n, s, err := open(b, SmallSize, flow, verdict.Outside)
	if n != number || s != sent || err != nil {
		t.Fatal(n, s, err)
	}
	for i := range b {
		b[i] ^= 4
		if _, _, err := open(b, SmallSize, flow, verdict.Outside); !errors.Is(err, errCorrupted) {
			t.Errorf("byte %d: %v", i, err)
		}
		b[i] ^= 4
	}
	for _, err := range []error{
		second(open(b[:len(b)-1], SmallSize, flow, verdict.Outside)),
		second(open(b, SmallSize, flow+1, verdict.Outside)),
		second(open(b, SmallSize, flow, verdict.Inside)),
	} {
		if !errors.Is(err, errCorrupted) {
			t.Error(err)
		}
	}
}

func second(_ uint64, _ int64, err error) error { return err }

// TestPacer checks a sender that is late.
func TestPacer(t *testing.T) {
	p := pacer{rate: 1000}
	if due := p.due(5 * time.Millisecond); due != 5 {
		t.Errorf("%d are due, want 5", due)
	}
	p.handed = 5
	if due := p.due(105 * time.Millisecond); due != 11 || p.behind != 89 {
		t.Errorf("%d are due and %d skipped, want 11 and 89", due, p.behind)
	}
	p.handed += 11
	if due := p.due(106 * time.Millisecond); due != 1 {
		t.Errorf("%d are due, want 1", due)
	}
}

// TestSeries checks that series returns counters and histograms, and no gauges.
func TestSeries(t *testing.T) {
	const text = `# TYPE a_total counter
a_total{side="inside"} 5
# TYPE g gauge
g 7
# TYPE h histogram
h_bucket{le="1"} 2
h_bucket{le="+Inf"} 3
h_sum 4
h_count 3
`
	values, err := series(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(values) != 5 || values["a_total{side=inside,}"] != 5 || values["h{} count"] != 3 || values["h{} sum"] != 4 {
		t.Errorf("series %v", values)
	}
}

// TestCounters reads metrics in which one counter decreases and another one vanishes.
func TestCounters(t *testing.T) {
	const kinds = "# TYPE a_total counter\n# TYPE b_total counter\n"
	texts := make(chan string, 4)
	for _, text := range []string{kinds + "a_total 5\nb_total 1\n", kinds + "a_total 5\nb_total 2\n", kinds + "a_total 4\n"} {
		texts <- text
	}
	read := make(chan struct{})
	c := WatchCounters(func() (string, error) {
		select {
		case text := <-texts:
			return text, nil
		default:
			select {
			case <-read:
			default:
				close(read)
			}
			return kinds + "a_total 4\n", nil
		}
	})
	<-read
	_, faults := c.Stop()
	if text := strings.Join(faults, "; "); text != "a_total{} decreased from 5 to 4; b_total{} vanished (was 2)" && text != "b_total{} vanished (was 2); a_total{} decreased from 5 to 4" {
		t.Errorf("faults %q", text)
	}
}
