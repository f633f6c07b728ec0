package stack

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fragwall/packet/verdict"
)

// recorder records the drops that a ledger is told of.
type recorder struct {
	Ledger
	drops *[]string
}

func (r recorder) Dropped(d *Datagram, why verdict.Reason) {
	*r.drops = append(*r.drops, fmt.Sprint(d.key.src, " ", d.key.id, " ", why))
	r.Ledger.Dropped(d, why)
}

// TestSameKeyRepeats makes tables evict, expire and be closed while they hold datagrams of many
// sources. Tables with the same key drop the same datagrams in the same order.
func TestSameKeyRepeats(t *testing.T) {
	run := func(key *[16]byte) (drops []string) {
		b := newBench(t, func(o *Options) {
			o.Memory, o.MaxDatagrams, o.Key = 16<<20, 2048, key
			o.Ledger = recorder{o.Ledger, &drops}
		})
		for i := range 4000 {
			b.now = b.now.Add(time.Millisecond)
			b.mustWait(unfinished(addr4(11, byte(i>>8), byte(i*7), 1), uint32(i), 64))
		}
		b.table.Expire(epoch.Add(33 * time.Second))
		b.table.Close()
		if len(drops) != 4000 {
			t.Fatalf("%d datagrams dropped, want 4000", len(drops))
		}
		return drops
	}
	key := &[16]byte{1}
	first := run(key)
	if !slices.Equal(first, run(key)) {
		t.Error("a table with the same key drops other datagrams, or in another order")
	}
	if slices.Equal(first, run(nil)) {
		t.Error("a table without a key drops the same as one with a key")
	}
}

// TestDeadlineIsTheEarliest has incomplete datagrams of both families in several shards.
func TestDeadlineIsTheEarliest(t *testing.T) {
	b := newBench(t)
	if d, waits := b.table.Deadline(); waits {
		t.Fatalf("an empty table has the deadline %v", d)
	}
	expect := func(want time.Duration) {
		t.Helper()
		if d, waits := b.table.Deadline(); !waits || d.Sub(epoch) != want {
			t.Errorf("%v, %v; want %v", d.Sub(epoch), waits, want)
		}
	}
	b.mustWait(datagram(familyIPv6, 1, 4000).Fragments(1000)[0])
	expect(60 * time.Second)
	b.now = b.now.Add(29 * time.Second)
	for i := range 20 {
		b.mustWait(unfinished(addr4(11, byte(i), 0, 1), 1, 64))
		b.now = b.now.Add(50 * time.Millisecond)
	}
	expect(59 * time.Second)
	b.table.Expire(epoch.Add(59 * time.Second))
	expect(59*time.Second + 50*time.Millisecond)
	b.table.Expire(epoch.Add(60*time.Second - 1))
	expect(60 * time.Second)
}
