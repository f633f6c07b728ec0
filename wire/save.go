package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/filter"
	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/stack"
)

// Format is the version of what [Bump.Save] writes. A reader of the same format reads
// what a writer of another version of the program wrote, which may know more fields or
// fewer; it changes where a field, or a number in one, means something else.
const Format = 1

// Parts says what of a wire is saved.
type Parts uint8

const (
	// AllFlows is every flow. From then on the wire takes note of what changes, until
	// [Bump.Release].
	AllFlows Parts = 1 << iota
	// ChangedFlows are those that changed or ended since flows were saved last.
	ChangedFlows
	// Rest is all else: counters, the fill of limits, fragments in waiting, datagrams
	// that were given up, and credits of sources. The wire has to be held.
	Rest
	// Unwatched says that flows may go on without the wire until they are restored.
	Unwatched
)

// A stream is chunks, each behind its length in 4 bytes, the most significant first, of
// one stream of package encoding/gob. The first has a header, the last says that it is.

// maxChunk is how long a chunk may be, in bytes: it bounds what a reader allocates.
const maxChunk = 1 << 18

// chunk is a part of a stream.
type chunk struct {
	Header    *streamHeader
	Gone      []flow.Key // before Flows
	FlowSize  int        // of one of
	Flows     []byte     // as [flow.AppendSaved] writes them
	Fast      []flow.Key // of flows that the fast path knows
	Rest      *savedRest // before the following
	Rules     []filter.SavedRule
	Credits   []stack.SavedCredit
	Datagrams []stack.Saved
	Last      bool
}

// streamHeader says what is common to all of a stream.
type streamHeader struct {
	Format   int
	Boot     string        // the system's boot
	Time     time.Duration // on the clock of that boot
	Elapsed  time.Duration // at the same time, on the policy's clock
	AllFlows bool          // there are no flows but those of this stream
	AnyVLANs bool          // flows are the same in any VLAN
	Secret   [2]uint64     // of the hash that flows are found by; zero without a flow table
}

// savedRest is [Rest] without what there may be much of.
type savedRest struct {
	Sides [verdict.Sides]savedSide // by where frames came in
	Mode  packet.Mode              // of fragments
	Hash  [2]uint64                // by which sources share credits, and the table of fragments; zero without one
}

// savedSide is the counters of a side, without what waits.
type savedSide struct {
	Forwarded                     uint64
	Dropped                       []uint64 // by reason
	ReceivedBytes, ForwardedBytes uint64
	Sent, SentBytes               uint64
	Reassembled, Answered         uint64
	Latency                       []uint64 // by bucket
	LatencySum                    time.Duration
	Replies                       time.Duration // when the limit of replies is there again, on the policy's clock
}

// Save writes parts of what the wire knows, for [Bump.Restore] of another process.
func (b *Bump) Save(to io.Writer, p Parts) error {
	w := newChunkWriter(to)
	h := streamHeader{Format: Format, Boot: b.bootID, Time: b.boot(), Elapsed: b.Elapsed()}
	policy := b.policy.Load()
	flows := policy.FlowTable()
	h.AnyVLANs = policy.AnyVLANs()
	if flows != nil {
		h.Secret = flows.Secret()
		if p&ChangedFlows != 0 && !flows.Saving() { // they are of another table than those that were saved
			p |= AllFlows
		}
	}
	h.AllFlows = flows == nil || p&AllFlows != 0
	if err := w.write(&chunk{Header: &h}); err != nil {
		return err
	}
	if flows != nil {
		if err := b.saveFlows(w, flows, p); err != nil {
			return err
		}
	}
	if p&(AllFlows|Unwatched) == AllFlows && b.fastPath != nil {
		for keys := range slices.Chunk(b.fastPath.Keys(), chunkLength) {
			if err := w.write(&chunk{Fast: keys}); err != nil {
				return err
			}
		}
	}
	if p&Rest != 0 {
		if err := b.saveRest(w, policy); err != nil {
			return err
		}
	}
	return w.write(&chunk{Last: true})
}

func (b *Bump) saveFlows(w *chunkWriter, flows *flow.Table, p Parts) error {
	var encoded []byte
	put := func(gone []flow.Key, flows []flow.Saved) error {
		for i := range flows {
			if p&Unwatched != 0 {
				flows[i].Unwatched()
			}
		}
		encoded = flow.AppendSaved(encoded[:0], flows)
		return w.write(&chunk{Gone: gone, FlowSize: flow.SavedSize, Flows: encoded})
	}
	pause := func(int) error { return nil }
	switch {
	case p&AllFlows != 0:
		return flows.Save(b.Elapsed, pause, put)
	case p&ChangedFlows != 0:
		return flows.SaveChanges(b.Elapsed, pause, put)
	}
	return nil
}

// chunkLength is how many entries a chunk has of those that are small.
const chunkLength = 256

// saveRest writes [Rest].
func (b *Bump) saveRest(w *chunkWriter, policy *filter.Table) error {
	rest := savedRest{Mode: b.mode}
	for side := range verdict.Side(verdict.Sides) {
		rest.Sides[side] = b.saveSide(side)
	}
	if b.table != nil {
		rest.Hash = b.table.Hash()
	}
	if err := w.write(&chunk{Rest: &rest}); err != nil {
		return err
	}
	for rules := range slices.Chunk(policy.SaveRules(), chunkLength) {
		if err := w.write(&chunk{Rules: rules}); err != nil {
			return err
		}
	}
	if b.table == nil {
		return nil
	}
	for credits := range slices.Chunk(b.table.SaveCredits(), chunkLength) {
		if err := w.write(&chunk{Credits: credits}); err != nil {
			return err
		}
	}
	return b.table.Save(b.Now(), func(d *stack.Saved) error {
		return w.write(&chunk{Datagrams: []stack.Saved{*d}})
	})
}

// saveSide returns the counters of a side. What a lane shed goes on to be counted by the
// device ([tun.Lane]).
func (b *Bump) saveSide(side verdict.Side) savedSide {
	s := b.Counters(side)
	s.Dropped[verdict.FragmentShed] -= b.Shed(side)
	latency := b.Latency(side).Snapshot()
	return savedSide{
		s.Forwarded, s.Dropped[:], s.ReceivedBytes, s.ForwardedBytes, s.Sent, s.SentBytes, s.Reassembled, s.Answered,
		latency.Buckets[:], latency.Sum, b.sides[side].replies.Full(),
	}
}

// chunkWriter writes a stream.
type chunkWriter struct {
	to      io.Writer
	buffer  bytes.Buffer
	encoder *gob.Encoder
}

func newChunkWriter(to io.Writer) *chunkWriter {
	w := &chunkWriter{to: to}
	w.encoder = gob.NewEncoder(&w.buffer)
	return w
}

func (w *chunkWriter) write(c *chunk) error {
	w.buffer.Reset()
	w.buffer.Write(make([]byte, 4))
	if err := w.encoder.Encode(c); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	b := w.buffer.Bytes()
	if len(b)-4 > maxChunk {
		return fmt.Errorf("save: a chunk of %d bytes", len(b))
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := w.to.Write(b); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// sinceBoot is the time since the system was booted, suspended or not.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // never fails
	return time.Duration(t.Nano())
}

// readBootID returns what names the system's boot; "" where that can't be read.
func readBootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
